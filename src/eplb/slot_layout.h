#pragma once
// Where physical slots lie. Slots are numbered over all ranks, each rank's own in one run; where the count
// does not divide, the first (slots mod ranks) ranks hold one more. The layout is fixed for the life of a
// deployment: a rebalance changes which expert a slot holds (expert_map.h), never where the slot is.
#include <algorithm>
#include <cstdint>

namespace cadre::eplb {

struct SlotLayout {
  int32_t num_slots = 0;
  int32_t num_ranks = 1;
  /// Every rank holds a shard of every slot (experts cut along their intermediate dimension, no expert
  /// parallelism).
  bool sharded = false;

  /// First slot of `rank`, 0 <= rank <= num_ranks.
  constexpr int32_t Begin(int32_t rank) const {
    if (sharded) return 0;
    return rank * (num_slots / num_ranks) + std::min(rank, num_slots % num_ranks);
  }
  /// Slots that `rank` holds (all of them where sharded).
  constexpr int32_t Count(int32_t rank) const {
    if (sharded) return num_slots;
    return num_slots / num_ranks + (rank < num_slots % num_ranks ? 1 : 0);
  }
  /// The rank that holds `slot`, 0 <= slot < num_slots. Only where not sharded.
  constexpr int32_t RankOf(int32_t slot) const {
    const int32_t base = num_slots / num_ranks, rem = num_slots % num_ranks;
    const int32_t in_larger = rem * (base + 1);  // slots on the ranks that hold one more
    return slot < in_larger ? slot / (base + 1) : rem + (slot - in_larger) / base;
  }
  friend bool operator==(const SlotLayout&, const SlotLayout&) = default;
};

}  // namespace cadre::eplb
