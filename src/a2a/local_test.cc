#include <gtest/gtest.h>

#include <cstring>

#include "a2a/a2a.h"

namespace cadre::a2a {
namespace {

Options OneRank() {
  Options options;
  options.hidden = 3;
  options.act_type = DType::kF32;
  options.top_k = 2;
  options.max_rows = 4;
  options.layout = {.num_slots = 3, .num_ranks = 1};
  return options;
}

TEST(Local, TableIsOrderedBySlotThenRowAndCombineSumsOverK) {
  const auto exchange = Create(OneRank());
  ASSERT_TRUE(exchange) << exchange.error().message;
  AllToAll& a2a = **exchange;
  for (int round = 0; round < 2; ++round) {  // buffers are used again
    a2a.BeginStep(round, TimePoint::max());
    auto* x = reinterpret_cast<float*>(a2a.Stage(3));
    for (int i = 0; i < 9; ++i) x[i] = static_cast<float>(i);
    const int32_t slots[] = {2, 0, -1, 2, -1, -1};
    const float weights[] = {0.5f, 0.25f, 9, 2, 9, 9};
    const auto table = a2a.Dispatch({3, slots, weights});
    ASSERT_TRUE(table);
    ASSERT_EQ(table->num_rows, 3);
    EXPECT_EQ(std::vector<int32_t>(table->offsets.begin(), table->offsets.end()),
              (std::vector<int32_t>{0, 1, 1, 3}));
    EXPECT_EQ(table->rows[0], x);
    EXPECT_EQ(table->rows[1], x);
    EXPECT_EQ(table->rows[2], x + 3);
    EXPECT_EQ(table->row_weights[0], 0.25f);
    EXPECT_EQ(table->row_weights[1], 0.5f);
    EXPECT_EQ(table->row_weights[2], 2.0f);
    const float experts[] = {1, 2, 3, 10, 20, 30, 100, 200, 300};
    float out[9];
    std::fill(out, out + 9, 1.0f);
    ASSERT_TRUE(a2a.Combine(experts, out, round == 1));
    const float add = round == 1 ? 1.0f : 0.0f;
    const float want[] = {11, 22, 33, 100, 200, 300, 0, 0, 0};
    for (int i = 0; i < 9; ++i) EXPECT_EQ(out[i], want[i] + add);
  }
  EXPECT_EQ(a2a.bytes(), ByteCounts{});
}

TEST(Local, NoRowsIsAStepLikeAnyOther) {
  const auto exchange = Create(OneRank());
  (*exchange)->Stage(0);
  const auto table = (*exchange)->Dispatch({});
  ASSERT_TRUE(table);
  EXPECT_EQ(table->num_rows, 0);
  EXPECT_EQ(table->offsets.back(), 0);
  EXPECT_TRUE((*exchange)->Combine(nullptr, nullptr, false));
}

TEST(Create, NamesAndShapes) {
  for (const char* name :
       {"pplx", "deepep_high_throughput", "deepep_low_latency", "flashinfer_all2allv", "mori",
        "flashinfer_nvlink_one_sided", "mori_low_latency", "deepep_v2", "nixl_ep"}) {
    auto named = OneRank();
    named.backend = name;
    EXPECT_TRUE(Create(named)) << name;
  }
  auto moonep = OneRank();
  moonep.backend = "moonep";
  EXPECT_EQ(Create(moonep).error().code, Code::kUnsupported);
  auto options = OneRank();
  options.backend = "gather";
  EXPECT_EQ(Create(options).error().code, Code::kInvalidArgument);
  options = OneRank();
  options.top_k = 65;
  EXPECT_FALSE(Create(options));
  options = OneRank();
  options.layout.num_ranks = 1025;
  EXPECT_FALSE(Create(options));
  options = OneRank();
  options.act_type = DType::kF16;
  EXPECT_FALSE(Create(options));
}

TEST(Local, ASlotThatDoesNotExistIsAnError) {
  const auto exchange = Create(OneRank());
  (*exchange)->Stage(1);
  const int32_t slots[] = {3, 0};
  const float weights[] = {1, 1};
  EXPECT_EQ((*exchange)->Dispatch({1, slots, weights}).error().code, Code::kDataLoss);
}

TEST(SplitRows, CoversEveryRowOnce) {
  for (int64_t rows = 0; rows < 20; ++rows) {
    for (int parts = 1; parts < 9; ++parts) {
      int64_t next = 0;
      for (int p = 0; p < parts; ++p) {
        const auto range = SplitRows(rows, parts, p);
        ASSERT_EQ(range.begin, next);
        next += range.count;
      }
      ASSERT_EQ(next, rows);
    }
  }
}

}  // namespace
}  // namespace cadre::a2a
