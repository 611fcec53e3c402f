#include "eplb/load.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <deque>

#include "eplb/cadence.h"
#include "eplb/placement.h"

namespace cadre::eplb {
namespace {

using Counts = std::vector<uint32_t>;

Counts DrawCounts(size_t size) {
  return *rc::gen::container<Counts>(
      size, rc::gen::oneOf(rc::gen::just(0u), rc::gen::inRange(0u, 200u), rc::gen::arbitrary<uint32_t>()));
}

RC_GTEST_PROP(LoadWindow, EqualsARingOfTables, ()) {
  const int layers = *rc::gen::inRange(1, 4), experts = *rc::gen::inRange(1, 20);
  const int window = *rc::gen::inRange(1, 6), steps = *rc::gen::inRange(0, 20);
  LoadWindow packed(layers, experts, window);
  std::deque<Counts> ring;
  for (int step = 0; step < steps; ++step) {
    if (*rc::gen::inRange(0, 10) == 0) {
      packed.Clear();
      ring.clear();
    }
    ring.push_back(DrawCounts(static_cast<size_t>(layers * experts)));
    if (ring.size() > static_cast<size_t>(window)) ring.pop_front();
    packed.Push(ring.back());
    LoadTable want(layers, experts);
    for (const Counts& counts : ring) {
      for (size_t i = 0; i < counts.size(); ++i) want.counts[i] += counts[i];
    }
    RC_ASSERT(packed.sum() == want);
    RC_ASSERT(packed.steps() == static_cast<int32_t>(ring.size()));
  }
}

// What load.h promises about memory, at DeepSeek-V3's size.
TEST(LoadWindow, TakesAByteACount) {
  LoadWindow window(58, 256, 100);
  for (uint32_t step = 0; step < 150; ++step) {
    Counts counts(58 * 256);
    for (size_t i = 0; i < counts.size(); ++i) counts[i] = static_cast<uint32_t>((i * 7 + step) % 128);
    window.Push(counts);
  }
  EXPECT_LE(window.bytes(), 100u * (58 * 256 * 102 / 100 + 128));
  for (int step = 0; step < 100; ++step) window.Push(Counts(58 * 256));  // and gives it back
  EXPECT_LE(window.bytes(), 100u * 128);
}

TEST(LoadTable, SlotsAreFoldedThroughTheMapOfTheirStep) {
  const auto before = StartMap(3, 2, 1, Placement::kLinear);  // 0 1 2 0 1
  const auto after = ExpertMap::Create(3, before->layout(), {2, 2, 2, 0, 1}, Epoch(2));
  Counts experts(3);
  FoldSlots(*before, Counts{10, 20, 30, 1, 2}, experts);
  EXPECT_EQ(experts, (Counts{11, 22, 30}));
  FoldSlots(*after, Counts{1, 1, 1, 5, 0}, experts);
  EXPECT_EQ(experts, (Counts{16, 22, 33}));
}

TEST(Balance, SumsMeansOverSumsOfMaxima) {
  // Two layers on two ranks: (30, 10) and (10, 10). Mean 20 + 10, maximum 30 + 10.
  const std::vector<ExpertMap> maps(2, *StartMap(2, 0, 2, Placement::kLinear));
  LoadTable load(2, 2);
  load.counts = {30, 10, 10, 10};
  const Balance balance = BalanceOf(maps, load);
  EXPECT_DOUBLE_EQ(balance.avg_tokens, 30);
  EXPECT_DOUBLE_EQ(balance.max_tokens, 40);
  EXPECT_DOUBLE_EQ(balance.balancedness(), 0.75);
  // One layer on two ranks: not always 1, as summing over the other axis would have it.
  LoadTable one(1, 2);
  one.counts = {30, 10};
  EXPECT_DOUBLE_EQ(BalanceOf(std::span(maps).first(1), one).balancedness(), 20.0 / 30);
  EXPECT_EQ(BalanceOf(maps, LoadTable(2, 2)).balancedness(), 0);
}

TEST(Balance, CopiesShareTheirExpertsLoad) {
  const auto map = ExpertMap::Create(3, {.num_slots = 5, .num_ranks = 2}, {0, 0, 1, 0, 2}, Epoch(1));
  EXPECT_EQ(RankLoads(*map, std::vector<int64_t>{30, 5, 7}), (std::vector<double>{25, 17}));
}

TEST(Cadence, FirstAfterAQuarterThenEveryInterval) {
  for (const int interval : {1, 2, 3, 4, 5, 200, 3000}) {
    Cadence cadence(interval);
    std::vector<int> due;
    for (int step = 1; step <= 3 * interval; ++step) {
      if (cadence.Advance(false)) due.push_back(step);
    }
    const int first = std::max(interval / 4, 1);
    ASSERT_GE(due.size(), 2u);
    EXPECT_EQ(due[0], first) << interval;
    EXPECT_EQ(due[1], first + interval) << interval;
  }
}

TEST(Cadence, WaitsForTheOneUnderWay) {
  Cadence cadence(4);
  EXPECT_TRUE(cadence.Advance(false));
  EXPECT_EQ(cadence.StepsUntilNext(), 4);
  for (int i = 0; i < 6; ++i) EXPECT_FALSE(cadence.Advance(true));
  EXPECT_EQ(cadence.StepsUntilNext(), -2);
  EXPECT_TRUE(cadence.Advance(false));
  cadence.Restart();
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(cadence.Advance(false));
  EXPECT_TRUE(cadence.Advance(false));
}

}  // namespace
}  // namespace cadre::eplb
