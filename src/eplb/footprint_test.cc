#include "eplb/footprint.h"

#include <gtest/gtest.h>

namespace cadre::eplb {
namespace {

// DeepSeek-V3: 58 MoE layers, 256 experts of three 7168 x 2048 matrices; 44 MB in fp8 (without scales).
constexpr int64_t kExpertBytes = int64_t{3} * 7168 * 2048;

TEST(Footprint, DeepSeekV3) {
  EXPECT_EQ(kExpertBytes, 44'040'192);
  // One slot on a rank, over all layers: the documents' "2.4 GB", which is 2.38 GiB.
  const Footprint one = FootprintOf(0, 32, 58, 256, 32, kExpertBytes, 0);
  EXPECT_EQ(one.redundant_bytes, 58 * kExpertBytes);
  EXPECT_EQ(one.redundant_bytes, 2'554'331'136);
  EXPECT_NEAR(static_cast<double>(one.redundant_bytes) / (1 << 30), 2.38, 0.005);
  // The documents' formula is all expert bytes of the rank: 58 x 44 MB x (256 + 32) / 32.
  EXPECT_EQ(one.slot_bytes, 58 * kExpertBytes * (256 + 32) / 32);
  EXPECT_EQ(one.slot_bytes, 22'988'980'224);
  // Spare places: one layer's nine slots, 0.37 GiB.
  const int32_t spares = DefaultSpares({.num_slots = 288, .num_ranks = 32});
  EXPECT_EQ(spares, 9);
  const Footprint all = FootprintOf(0, 32, 58, 256, 32, kExpertBytes, spares);
  EXPECT_EQ(all.spare_bytes, 9 * kExpertBytes);
  EXPECT_EQ(all.total(), one.slot_bytes + 396'361'728);
  // Without redundancy nothing is overhead.
  EXPECT_EQ(FootprintOf(5, 8, 58, 256, 0, kExpertBytes, 0).redundant_bytes, 0);
}

TEST(Footprint, UnevenRanksDiffer) {
  // 256 + 2 over 8: ranks 0 and 1 hold one more.
  for (int32_t rank = 0; rank < 8; ++rank) {
    const Footprint f = FootprintOf(rank, 8, 58, 256, 2, kExpertBytes, 0);
    EXPECT_EQ(f.slot_bytes, 58 * kExpertBytes * (rank < 2 ? 33 : 32));
    EXPECT_EQ(f.redundant_bytes, rank < 2 ? 58 * kExpertBytes : 0);
  }
  EXPECT_EQ(DefaultSpares({.num_slots = 258, .num_ranks = 8}), 33);
  EXPECT_EQ(DefaultSpares({.num_slots = 8, .num_ranks = 2, .sharded = true}), 0);
}

TEST(NearestEven, BothSides) {
  const auto even = [](int32_t experts, int32_t redundant, int32_t ranks) {
    const EvenCounts e = NearestEven(experts, redundant, ranks);
    return std::pair{e.below, e.above};
  };
  EXPECT_EQ(even(256, 2, 8), std::pair(0, 8));
  EXPECT_EQ(even(256, 32, 32), std::pair(32, 32));
  EXPECT_EQ(even(60, 1, 8), std::pair(-1, 4));
  EXPECT_EQ(even(60, 5, 8), std::pair(4, 12));
  EXPECT_EQ(even(7, 0, 1), std::pair(0, 0));
}

}  // namespace
}  // namespace cadre::eplb
