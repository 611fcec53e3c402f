#pragma once
// One layer's map between the model's experts and the physical slots, under a numbered epoch.
// A map is immutable: a rebalance makes a new one with the next epoch, so nobody can see one half-way.
#include <cstdint>
#include <span>
#include <vector>

#include "base/error.h"
#include "base/ids.h"
#include "eplb/slot_layout.h"

namespace cadre::eplb {

/// What a row's copies are chosen by: the row itself and the layer, never its company, so that a batch does
/// not change an answer and prompts with a common beginning go the same way. position: in the sequence;
/// layer: among the MoE layers. Cost: three multiplications.
inline uint32_t RowHash(int32_t position, int32_t token, int32_t layer) {
  // Source of the mixing constants: SplitMix64 (Steele, Lea, Flood 2014).
  uint64_t x = (static_cast<uint64_t>(static_cast<uint32_t>(position)) << 32 | static_cast<uint32_t>(token)) +
               static_cast<uint64_t>(static_cast<uint32_t>(layer)) * 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return static_cast<uint32_t>((x ^ (x >> 31)) >> 32);
}

class ExpertMap {
 public:
  /// slot_to_expert [layout.num_slots]: the expert that each slot holds.
  /// Errors: kInvalidArgument for an expert out of range, an expert without a slot, or a wrong number of
  /// slots.
  static Result<ExpertMap> Create(int32_t num_experts, SlotLayout layout, std::vector<int32_t> slot_to_expert,
                                  Epoch epoch);

  Epoch epoch() const { return epoch_; }
  const SlotLayout& layout() const { return layout_; }
  /// Some expert has more than one slot, so MapChoices looks at row_hash.
  bool has_copies() const { return !layout_.sharded && layout_.num_slots > num_experts(); }
  int32_t num_experts() const { return static_cast<int32_t>(first_.size()) - 1; }

  LogicalExpert ExpertOf(Slot slot) const;
  /// [layout().num_slots] the expert that each slot holds.
  std::span<const int32_t> slot_to_expert() const { return slot_to_expert_; }
  /// The slots that hold `expert`, in rising order; at least one.
  std::span<const int32_t> SlotsOf(LogicalExpert expert) const;
  /// The experts that `rank` holds, by local slot.
  std::span<const int32_t> ExpertsOn(int32_t rank) const;

  /// Router choices to slots: experts [num_rows, top_k] (-1 stays -1) -> slots [num_rows, top_k]. Where an
  /// expert has several slots, row t takes copy row_hash[t] mod copies (row_hash null: copy 0), of all copies
  /// or of those that Preferring left. May be done in place.
  void MapChoices(int64_t num_rows, int32_t top_k, const int32_t* experts, const uint32_t* row_hash,
                  int32_t* slots) const;

  /// The same map, whose MapChoices takes copies on the ranks begin .. end-1 where an expert has any there
  /// (replica routing "nearest": the ranks of the own host). Ranks with different preferences still have the
  /// same map.
  ExpertMap Preferring(int32_t begin, int32_t end) const;

  /// [num_experts] local index of each expert's first slot on `rank`, or -1 (vLLM's expert_map, for its log
  /// line).
  std::vector<int32_t> LocalIndex(int32_t rank) const;

 private:
  ExpertMap() = default;
  SlotLayout layout_;
  Epoch epoch_;
  std::vector<int32_t> slot_to_expert_;
  std::vector<int32_t> first_;  // slots of expert e: slots_[first_[e] .. first_[e+1])
  std::vector<int32_t> slots_;
  std::vector<int32_t> choice_first_, choices_;  // the same for MapChoices; empty: all slots
};

}  // namespace cadre::eplb
