#pragma once
// How much work each expert had: counts of (row, choice) pairs, [MoE layers, experts] of the model's own
// experts.
//
// Counts are kept per expert and not per slot: a slot's meaning changes with the map, an expert's does not.
// So what a window sums stays right over a rebalance (vLLM keeps slot counts and reads old ones through the
// new map). Whoever counts slots folds them with FoldSlots through the map of the step in which they were
// counted.
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "eplb/expert_map.h"
#include "eplb/slot_layout.h"

namespace cadre::eplb {

/// [num_layers, num_experts], layer by layer.
struct LoadTable {
  int32_t num_layers = 0;
  int32_t num_experts = 0;
  std::vector<int64_t> counts;

  LoadTable() = default;
  /// All zero.
  LoadTable(int32_t layers, int32_t experts)
      : num_layers(layers),
        num_experts(experts),
        counts(static_cast<size_t>(layers) * static_cast<size_t>(experts)) {}

  std::span<int64_t> Layer(int32_t layer);
  std::span<const int64_t> Layer(int32_t layer) const;
  friend bool operator==(const LoadTable&, const LoadTable&) = default;
};

/// Adds one layer's slot counts [map slots] to its experts' counts [map experts].
void FoldSlots(const ExpertMap& map, std::span<const uint32_t> slot_counts,
               std::span<uint32_t> expert_counts);

/// The sum over the last `window_size` steps that were entered, exactly: it equals a ring of that many
/// [layers, experts] tables. The ring holds them packed, about one byte a count and less for runs of zeros
/// (1000 steps of DeepSeek-V3, 58 x 256: at most 15 MB while counts stay below 127, instead of 59 MB).
/// Steps without a real row are not entered, so an idle server keeps its picture; ranks may have entered
/// different numbers of steps. Not thread-safe. Cost of Push: one pass over the counts that enter and one
/// over those that leave.
class LoadWindow {
 public:
  /// All three at least 1 (checked).
  LoadWindow(int32_t num_layers, int32_t num_experts, int32_t window_size);

  /// Enters one step: counts [layers, experts] of this rank's real rows.
  void Push(std::span<const uint32_t> counts);
  /// Forgets all steps.
  void Clear();

  const LoadTable& sum() const { return sum_; }
  int32_t steps() const { return steps_; }  ///< entered and not yet left; at most window_size
  size_t bytes() const;                     ///< memory that the packed steps take now

 private:
  LoadTable sum_;
  int32_t steps_ = 0;
  int32_t next_ = 0;  // ring position of the next step; the oldest where the ring is full
  std::vector<std::vector<uint8_t>> ring_;  // one packed step each
  std::vector<uint8_t> packed_;             // scratch
};

/// What each rank of a layer carries under a map, if the rows of an expert split evenly over its copies:
/// load [map experts] -> rank loads [map ranks].
std::vector<double> RankLoads(const ExpertMap& map, std::span<const int64_t> load);
/// The same for a map that is not made yet. slot_to_expert [layout.num_slots], entries in 0..load.size()-1.
std::vector<double> RankLoads(const SlotLayout& layout, std::span<const int32_t> slot_to_expert,
                              std::span<const int64_t> load);

/// Tokens of the mean and of the fullest rank, summed over layers.
struct Balance {
  double avg_tokens = 0;  ///< sum over layers of the mean over ranks
  double max_tokens = 0;  ///< sum over layers of the maximum over ranks
  /// 1 is even; 0 where nothing was counted (as vLLM prints it). vLLM documents this formula, though its code
  /// sums over the other axis and so prints 1 for every model with a single MoE layer.
  double balancedness() const { return max_tokens > 0 ? avg_tokens / max_tokens : 0; }

  /// Takes one more layer in: its loads [ranks].
  void Add(std::span<const double> rank_loads);
};

/// Balance of all layers under their maps [load.num_layers].
Balance BalanceOf(std::span<const ExpertMap> maps, const LoadTable& load);

}  // namespace cadre::eplb
