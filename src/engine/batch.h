#pragma once
// One step's rows as flat arrays: what the model sees of the scheduler's plan.
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/scheduler.h"
#include "kernels/attention.h"
#include "nn/step_context.h"

namespace cadre::engine {

/// Owns the arrays that nn::StepBatch points into.
class Batch {
 public:
  Batch() = default;
  Batch(Batch&&) = default;  // not copied: views point into the arrays
  Batch& operator=(Batch&&) = default;
  /// Rows in the plan's order; a logits row for every sequence that completes, and for each prompt token
  /// whose successor's log probability is wanted.
  Batch(std::span<const ScheduledSequence> plan, int32_t block_size);

  /// A sequence whose blocks another engine will want: its ranks' agents are told of each step.
  struct Source {
    int32_t sequence = 0;  ///< of View().sequences
    bool first = false;    ///< the agents have heard nothing of its blocks yet
    std::string id;
  };
  const std::vector<Source>& sources() const { return sources_; }
  /// The blocks of a source's tokens so far.
  std::span<const int32_t> BlocksOf(const Source& source) const;

  /// The rows that want the adapter in `slot`.
  struct AdapterUse {
    int32_t slot = 0;
    std::vector<int32_t> rows;  ///< ascending
  };
  const std::vector<AdapterUse>& adapters() const { return adapters_; }

  /// The same for the other ranks of a replica, which hold no sequences. `bytes` must come from Serialize().
  std::string Serialize() const;
  static Batch Deserialize(std::string_view bytes, int32_t block_size);

  nn::StepBatch View() const;
  /// Rows whose logits are wanted, ascending.
  std::span<const int32_t> logit_rows() const { return logit_rows_; }
  int64_t num_tokens() const { return static_cast<int64_t>(token_ids_.size()); }

 private:
  void AddSequence(std::span<const int32_t> tokens, int64_t first_position,
                   std::span<const int32_t> block_table, int32_t block_size, int32_t adapter);
  void PointIntoTables();

  std::vector<int32_t> token_ids_, positions_;
  std::vector<int64_t> kv_slots_;
  std::vector<kernels::AttentionSequence> sequences_;
  std::vector<int32_t> block_tables_;       // of all sequences, one behind the other
  std::vector<int32_t> block_table_begin_;  // [sequences]
  std::vector<int32_t> logit_rows_;
  std::vector<Source> sources_;
  std::vector<int32_t> adapter_slots_;  // [sequences] -1: none
  std::vector<AdapterUse> adapters_;
};

}  // namespace cadre::engine
