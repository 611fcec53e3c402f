#include "eplb/footprint.h"

#include "base/check.h"

namespace cadre::eplb {

Footprint FootprintOf(int32_t rank, int32_t num_ranks, int32_t num_layers, int32_t num_experts,
                      int32_t num_redundant, int64_t expert_bytes, int32_t num_spares) {
  CADRE_CHECK(rank >= 0 && rank < num_ranks);
  const SlotLayout without{.num_slots = num_experts, .num_ranks = num_ranks};
  const SlotLayout with{.num_slots = num_experts + num_redundant, .num_ranks = num_ranks};
  const int64_t layer_bytes = num_layers * expert_bytes;  // one slot in each layer
  return {.slot_bytes = with.Count(rank) * layer_bytes,
          .redundant_bytes = (with.Count(rank) - without.Count(rank)) * layer_bytes,
          .spare_bytes = num_spares * expert_bytes};
}

int32_t DefaultSpares(const SlotLayout& layout) {
  return layout.sharded ? 0 : layout.Count(0);
}

EvenCounts NearestEven(int32_t num_experts, int32_t num_redundant, int32_t num_ranks) {
  CADRE_CHECK(num_ranks >= 1);
  const int32_t over = (num_experts + num_redundant) % num_ranks;
  if (over == 0) return {.below = num_redundant, .above = num_redundant};
  return {.below = num_redundant >= over ? num_redundant - over : -1,
          .above = num_redundant + num_ranks - over};
}

}  // namespace cadre::eplb
