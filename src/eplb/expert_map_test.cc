#include "eplb/expert_map.h"

#include <gtest/gtest.h>

#include <cmath>

#include "eplb/placement.h"

namespace cadre::eplb {
namespace {

using Ints = std::vector<int32_t>;

Ints Local(int32_t experts, int32_t ranks, int32_t rank, Placement placement) {
  return StartMap(experts, 0, ranks, placement)->LocalIndex(rank);
}

// The vectors of vLLM's tests/distributed/test_expert_placement.py.
TEST(Placement, RoundRobinEqualsVllm) {
  const auto rr = Placement::kRoundRobin;
  EXPECT_EQ(Local(8, 2, 0, rr), (Ints{0, -1, 1, -1, 2, -1, 3, -1}));
  EXPECT_EQ(Local(8, 2, 1, rr), (Ints{-1, 0, -1, 1, -1, 2, -1, 3}));
  EXPECT_EQ(Local(9, 2, 0, rr), (Ints{0, -1, 1, -1, 2, -1, 3, -1, 4}));
  EXPECT_EQ(Local(9, 2, 1, rr), (Ints{-1, 0, -1, 1, -1, 2, -1, 3, -1}));
  for (int32_t r = 0; r < 4; ++r) {
    Ints want(8, -1);
    want[static_cast<size_t>(r)] = 0;
    want[static_cast<size_t>(r) + 4] = 1;
    EXPECT_EQ(Local(8, 4, r, rr), want);
  }
  for (const auto& [ranks, experts] : std::vector<std::pair<int, int>>{
           {2, 4}, {2, 8}, {2, 9}, {2, 16}, {2, 17}, {4, 8}, {4, 16}, {4, 18}, {4, 32}, {4, 33}}) {
    const auto map = StartMap(experts, 0, ranks, rr);
    for (int r = 0; r < ranks; ++r) {
      EXPECT_EQ(map->ExpertsOn(r).size(), static_cast<size_t>(experts / ranks + (r < experts % ranks)));
    }
  }
}

// "linear: GPU 0 gets experts [0,1], GPU 1 gets [2,3]; round_robin: GPU 0 gets [0,2], GPU 1 gets [1,3]".
TEST(Placement, EqualsTheDocumentsExample) {
  const auto on = [](Placement placement, int32_t redundant, int32_t rank) {
    const auto map = StartMap(4, redundant, 2, placement);
    const auto experts = map->ExpertsOn(rank);
    return Ints(experts.begin(), experts.end());
  };
  EXPECT_EQ(on(Placement::kLinear, 0, 0), (Ints{0, 1}));
  EXPECT_EQ(on(Placement::kLinear, 0, 1), (Ints{2, 3}));
  EXPECT_EQ(on(Placement::kRoundRobin, 0, 0), (Ints{0, 2}));
  EXPECT_EQ(on(Placement::kRoundRobin, 0, 1), (Ints{1, 3}));
  // Entries 0 1 2 3 0 1 with two copies: entry j goes to rank j mod 2.
  EXPECT_EQ(on(Placement::kRoundRobin, 2, 0), (Ints{0, 2, 0}));
  EXPECT_EQ(on(Placement::kRoundRobin, 2, 1), (Ints{1, 3, 1}));
  EXPECT_EQ(on(Placement::kLinear, 1, 0), (Ints{0, 1, 2}));  // uneven: the first rank holds one more
  EXPECT_EQ(on(Placement::kLinear, 1, 1), (Ints{3, 0}));
}

TEST(Placement, LinearGivesTheFirstRanksOneMore) {
  for (const int32_t ranks : {1, 2, 3, 4, 7, 64}) {
    for (const int32_t experts : {1, 3, 8, 10, 60, 257}) {
      const auto map = StartMap(experts, 0, ranks, Placement::kLinear);
      for (int32_t r = 0; r < ranks; ++r) {
        const int32_t start = r * (experts / ranks) + std::min(r, experts % ranks);
        const auto own = map->ExpertsOn(r);
        ASSERT_EQ(own.size(), static_cast<size_t>(experts / ranks + (r < experts % ranks ? 1 : 0)));
        for (size_t i = 0; i < own.size(); ++i) ASSERT_EQ(own[i], start + static_cast<int32_t>(i));
      }
    }
  }
}

TEST(SlotLayout, RankOfIsTheInverseOfBegin) {
  for (int32_t ranks = 1; ranks <= 9; ++ranks) {
    for (int32_t slots = 0; slots <= 40; ++slots) {
      const SlotLayout layout{.num_slots = slots, .num_ranks = ranks};
      for (int32_t r = 0; r < ranks; ++r) {
        ASSERT_EQ(layout.Begin(r) + layout.Count(r), layout.Begin(r + 1));
        for (int32_t s = layout.Begin(r); s < layout.Begin(r + 1); ++s) ASSERT_EQ(layout.RankOf(s), r);
      }
      ASSERT_EQ(layout.Begin(ranks), slots);
    }
  }
}

TEST(ExpertMap, CopiesAreFoundAndChosenByHash) {
  // 4 experts, 2 copies, 4 ranks: entries 0 1 2 3 0 1, two ranks with two slots.
  const auto map = StartMap(4, 2, 4, Placement::kRoundRobin);
  ASSERT_TRUE(map);
  EXPECT_EQ(map->epoch(), Epoch(1));
  EXPECT_EQ(Ints(map->ExpertsOn(0).begin(), map->ExpertsOn(0).end()), (Ints{0, 0}));
  EXPECT_EQ(Ints(map->ExpertsOn(1).begin(), map->ExpertsOn(1).end()), (Ints{1, 1}));
  const Ints experts = {0, 3, 0, -1, 1, 0};
  const std::vector<uint32_t> hash = {0, 1, 5};
  Ints slots(6);
  map->MapChoices(3, 2, experts.data(), hash.data(), slots.data());
  EXPECT_EQ(slots, (Ints{0, 5, 1, -1, 3, 1}));
  map->MapChoices(3, 2, experts.data(), nullptr, slots.data());
  EXPECT_EQ(slots, (Ints{0, 5, 0, -1, 2, 0}));
  for (int32_t s = 0; s < 6; ++s) {
    const auto all = map->SlotsOf(map->ExpertOf(Slot(s)));
    EXPECT_NE(std::find(all.begin(), all.end(), s), all.end());
  }
}

TEST(ExpertMap, NearCopiesArePreferredWhereThereAreAny) {
  // 3 experts, slots 0 1 | 2 0 | 0 1 on three ranks.
  const auto map = ExpertMap::Create(3, {.num_slots = 6, .num_ranks = 3}, {0, 1, 2, 0, 0, 1}, Epoch(1));
  EXPECT_TRUE(map->has_copies());
  const ExpertMap near = map->Preferring(1, 3);
  const Ints experts = {0, 1, 2};
  const auto choose = [&](const ExpertMap& by, uint32_t hash) {
    Ints slots(3);
    by.MapChoices(1, 3, experts.data(), &hash, slots.data());
    return slots;
  };
  EXPECT_EQ(choose(*map, 0), (Ints{0, 1, 2}));
  EXPECT_EQ(choose(near, 0), (Ints{3, 5, 2}));  // 2 has one copy only
  EXPECT_EQ(choose(near, 1), (Ints{4, 5, 2}));
  EXPECT_EQ(choose(map->Preferring(0, 1), 5), (Ints{0, 1, 2}));
  EXPECT_EQ(choose(map->Preferring(0, 3), 5), choose(*map, 5));
  EXPECT_EQ(near.SlotsOf(LogicalExpert(0)).size(), 3u);
  EXPECT_FALSE(StartMap(4, 0, 2, Placement::kLinear)->has_copies());
  EXPECT_FALSE(ShardedMap(4, 2)->has_copies());
}

// Any few bits of the hash must be even over rows, layers and tokens: copies are chosen by hash mod copies.
TEST(RowHash, SpreadsRowsOverCopies) {
  constexpr int kRows = 4096;
  for (const uint32_t copies : {2u, 3u, 4u, 7u}) {
    for (int way = 0; way < 4; ++way) {
      std::vector<int> taken(copies);
      for (int i = 0; i < kRows; ++i) {
        const uint32_t hash = way == 0   ? RowHash(i, 17, 3)  // one token over and over
                              : way == 1 ? RowHash(5, i, 3)   // one position, many sequences
                              : way == 2 ? RowHash(5, 17, i)  // one row in many layers
                                         : RowHash(i, i % 128, 0);
        ++taken[hash % copies];
      }
      const double even = static_cast<double>(kRows) / copies;
      // Five standard deviations of fair draws.
      for (const int n : taken) EXPECT_NEAR(n, even, 5 * std::sqrt(even)) << copies << " copies, way " << way;
    }
  }
  EXPECT_EQ(RowHash(1, 2, 3), RowHash(1, 2, 3));
  EXPECT_NE(RowHash(1, 2, 3), RowHash(2, 1, 3));
}

TEST(ExpertMap, BadMapsAreRefused) {
  const SlotLayout layout{.num_slots = 3, .num_ranks = 2};
  EXPECT_FALSE(ExpertMap::Create(3, layout, {0, 1}, Epoch(1)));
  EXPECT_FALSE(ExpertMap::Create(3, layout, {0, 1, 3}, Epoch(1)));
  EXPECT_FALSE(ExpertMap::Create(3, layout, {0, 1, -1}, Epoch(1)));
  const auto missing = ExpertMap::Create(3, layout, {0, 2, 2}, Epoch(1));
  ASSERT_FALSE(missing);
  EXPECT_NE(missing.error().message.find("expert 1"), std::string::npos);
  EXPECT_FALSE(StartMap(0, 0, 1, Placement::kLinear));
  EXPECT_FALSE(StartMap(4, -1, 1, Placement::kLinear));
  EXPECT_FALSE(StartMap(4, 0, 0, Placement::kLinear));
  EXPECT_FALSE(ParsePlacement("Linear"));
  EXPECT_EQ(ParsePlacement("round_robin"), Placement::kRoundRobin);
}

TEST(ExpertMap, ShardedMapHoldsEveryExpertEverywhere) {
  const auto map = ShardedMap(5, 3);
  for (int32_t r = 0; r < 3; ++r) EXPECT_EQ(map->ExpertsOn(r).size(), 5u);
  EXPECT_EQ(map->LocalIndex(2), (Ints{0, 1, 2, 3, 4}));
}

}  // namespace
}  // namespace cadre::eplb
