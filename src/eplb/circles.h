#pragma once
// One layer's change, cut into circles: the smallest parts that can be done alone and leave a legal map
// (moves.h says why this is always possible with one spare place a rank).
#include <cstdint>
#include <span>
#include <vector>

#include "eplb/slot_layout.h"

namespace cadre::eplb {

/// A rank gains what `gains` should hold and gives up what `loses` held at first; both are slots of the rank.
struct Swap {
  int32_t rank = 0;
  int32_t gains = 0;
  int32_t loses = 0;
};
/// At most one swap a rank.
using Circle = std::vector<Swap>;

/// present, target: [layout.num_slots], legal maps, target after KeepSlots. Each slot that differs is gained
/// once and lost once over all circles. Any set of whole circles, applied to `present`, leaves every expert a
/// slot. Short circles come first. Cost: linear in slots + experts.
std::vector<Circle> CutIntoCircles(const SlotLayout& layout, int32_t num_experts,
                                   std::span<const int32_t> present, std::span<const int32_t> target);

}  // namespace cadre::eplb
