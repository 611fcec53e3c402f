#pragma once
// The LoRA adapters of one rank: read, put into a slot, taken out again. WeightKeeper calls it between two
// steps, on all ranks with the same orders in the same order, so that slots and versions are the same
// everywhere without a word between ranks.
#include <memory>
#include <string>
#include <vector>

#include "engine/control.h"
#include "model/adapter.h"

namespace cadre::deploy {

struct AdapterOptions {
  int64_t max_adapters = 0;  ///< at once
  int64_t max_rank = 0;
};

class AdapterKeeper {
 public:
  /// `spec` and `plan` must outlive it.
  AdapterKeeper(const model::ModelSpec& spec, const model::WeightPlan& plan, AdapterOptions options)
      : spec_(spec), plan_(plan), options_(options) {}

  /// Whether the order can be carried out as far as names go; the same on all ranks. Errors: vLLM's words.
  Status CheckName(const engine::WeightOrder& order) const;
  /// Reads what the order wants; nothing is visible yet. Errors: as LoadAdapter.
  Status Prepare(const engine::WeightOrder& order);
  int64_t prepared_bytes() const { return prepared_ ? prepared_->source_bytes : 0; }
  /// Makes it so. The adapter in question, as it is now or was.
  engine::AdapterInfo Commit(const engine::WeightOrder& order);
  void Abandon() { prepared_.reset(); }

  const engine::AdapterList& list() const { return list_; }
  /// For the steps; the address stays.
  const std::vector<const nn::Adapter*>& slots() const { return slots_; }

 private:
  const model::ModelSpec& spec_;
  const model::WeightPlan& plan_;
  const AdapterOptions options_;
  std::unique_ptr<model::LoadedAdapter> prepared_;
  std::vector<std::unique_ptr<model::LoadedAdapter>> loaded_;  // by slot
  std::vector<const nn::Adapter*> slots_;                      // their weights
  engine::AdapterList list_;
  int64_t num_loaded_ = 0;
};

}  // namespace cadre::deploy
