// Maps of 1,024 ranks. Nothing in a map may grow with ranks times experts.
#include <gtest/gtest.h>

#include <numeric>

#include "eplb/placement.h"

namespace cadre::eplb {
namespace {

constexpr int32_t kRanks = 1024;

TEST(Scale, AStartMapOf1024RanksHoldsEverySlotOnce) {
  for (const Placement placement : {Placement::kLinear, Placement::kRoundRobin}) {
    for (const int32_t redundant : {0, 32, 768, 1792}) {
      const auto map = StartMap(256, redundant, kRanks, placement);
      ASSERT_TRUE(map) << map.error().message;
      const SlotLayout& layout = map->layout();
      EXPECT_EQ(layout.num_slots, 256 + redundant);
      EXPECT_EQ(layout.num_ranks, kRanks);
      // Slots by rank and slots by expert are each the same list once.
      size_t by_rank = 0, by_expert = 0;
      for (int32_t r = 0; r < kRanks; ++r) {
        by_rank += map->ExpertsOn(r).size();
        EXPECT_EQ(layout.Begin(r) + layout.Count(r), layout.Begin(r + 1));
        EXPECT_LE(layout.Count(r), (layout.num_slots + kRanks - 1) / kRanks);
      }
      for (int32_t e = 0; e < 256; ++e) by_expert += map->SlotsOf(LogicalExpert(e)).size();
      EXPECT_EQ(by_rank, static_cast<size_t>(layout.num_slots));
      EXPECT_EQ(by_expert, static_cast<size_t>(layout.num_slots));
      for (int32_t s = 0; s < layout.num_slots; ++s) {
        const int32_t rank = layout.RankOf(s);
        EXPECT_TRUE(s >= layout.Begin(rank) && s < layout.Begin(rank + 1));
      }
    }
  }
}

TEST(Scale, ChoicesAreMappedOver1024Ranks) {
  const auto map = StartMap(256, 768, kRanks, Placement::kLinear);
  ASSERT_TRUE(map);
  std::vector<int32_t> experts(256), slots(256);
  std::iota(experts.begin(), experts.end(), 0);
  std::vector<uint32_t> hash(32);
  for (uint32_t t = 0; t < 32; ++t) hash[t] = t * 2654435761u;
  map->MapChoices(32, 8, experts.data(), hash.data(), slots.data());
  std::vector<bool> seen(1024, false);
  for (int32_t e = 0; e < 256; ++e) {
    EXPECT_EQ(map->ExpertOf(Slot(slots[static_cast<size_t>(e)])), LogicalExpert(e));
    EXPECT_FALSE(seen[static_cast<size_t>(slots[static_cast<size_t>(e)])]);
    seen[static_cast<size_t>(slots[static_cast<size_t>(e)])] = true;
  }
}

}  // namespace
}  // namespace cadre::eplb
