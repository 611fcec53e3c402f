#pragma once
// What expert slots take in a rank's memory. The documents' formula "layers x bytes per expert x (experts +
// redundant) / ranks" is all expert bytes of a rank; the overhead of redundancy is only the last term.
#include <cstdint>

#include "eplb/slot_layout.h"

namespace cadre::eplb {

struct Footprint {
  int64_t slot_bytes = 0;       ///< all slots of the rank, over all MoE layers (the documents' formula)
  int64_t redundant_bytes = 0;  ///< the part of slot_bytes that redundant experts add
  int64_t spare_bytes = 0;      ///< spare places of the mover, on top
  int64_t total() const { return slot_bytes + spare_bytes; }
};

/// Expert memory of `rank`. `expert_bytes`: one expert of one layer, all its matrices and scales as stored.
/// `num_spares`: spare places of the rank, over all layers.
Footprint FootprintOf(int32_t rank, int32_t num_ranks, int32_t num_layers, int32_t num_experts,
                      int32_t num_redundant, int64_t expert_bytes, int32_t num_spares);

/// Spare places a rank by default: as many as its largest layer has slots.
int32_t DefaultSpares(const SlotLayout& layout);

/// The nearest numbers of redundant experts that divide evenly over the ranks: the largest at or below
/// `num_redundant` that is not negative (-1 if there is none), and the smallest at or above.
struct EvenCounts {
  int32_t below = -1;
  int32_t above = 0;
};
EvenCounts NearestEven(int32_t num_experts, int32_t num_redundant, int32_t num_ranks);

}  // namespace cadre::eplb
