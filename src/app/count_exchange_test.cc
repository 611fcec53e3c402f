#include "app/count_exchange.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "sys/files.h"

namespace cadre::app {
namespace {

const std::vector<std::string> kNames = {
    "allgather_reducescatter", "naive", "pplx", "deepep_high_throughput", "deepep_low_latency",
    "flashinfer_all2allv",     "mori"};

TEST(CountExchange, TheScalePageHasTheseNumbers) {
  const auto page = sys::ReadFile(std::string(CADRE_SOURCE_DIR) + "/docs/scale.md", 1 << 20);
  ASSERT_TRUE(page) << page.error().message;
  Json rows;
  const auto table = CountTable(CountCase{}, kNames, {1, 2, 4, 8, 16, 32, 64}, rows);
  ASSERT_TRUE(table) << table.error().message;
  EXPECT_TRUE(page->contains(*table)) << "docs/scale.md differs; now it should be\n" << *table;
  EXPECT_EQ(rows.AsArray().size(), 7u * 7u);
}

TEST(CountExchange, TwoHostsOfOneRankByHand) {
  CountCase c{.backend = "allgather_reducescatter",
              .hosts = 2,
              .ranks_per_host = 1,
              .rows = 5,
              .hidden = 16,
              .top_k = 4,
              .experts = 4,
              .layers = 3};
  // All four experts are chosen by every row, so each row is wanted on both hosts and one result comes home.
  const auto bytes = CountExchange(c);
  ASSERT_TRUE(bytes) << bytes.error().message;
  const int64_t rows_there = 5 * (16 * 2 + 4 * 8), results_home = 5 * 16 * 2;
  EXPECT_EQ(bytes->wire, 3 * (rows_there + results_home));
  EXPECT_EQ(bytes->formula, 3 * 5 * (16 * 2 + 4 * 8 + 16 * 2));
}

TEST(CountExchange, BytesAreProportionalToRowsAndLayersAndLevelOff) {
  CountCase c{.backend = "mori", .hosts = 4, .rows = 8, .hidden = 64};
  const int64_t once = CountExchange(c)->formula;
  c.layers *= 2;
  EXPECT_EQ(CountExchange(c)->formula, 2 * once);
  c.layers /= 2;
  const auto of = [&](const char* name, int hosts) {
    c.backend = name;
    c.hosts = hosts;
    return static_cast<double>(CountExchange(c)->formula);
  };
  // Rows go to at most 8 ranks, or everywhere.
  EXPECT_LT(of("deepep_high_throughput", 32) / of("deepep_high_throughput", 4), 1.3);
  EXPECT_GT(of("allgather_reducescatter", 32) / of("allgather_reducescatter", 4), 6);
  EXPECT_FALSE(CountExchange({.backend = "nonesuch"}));
}

}  // namespace
}  // namespace cadre::app
