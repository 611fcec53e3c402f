#pragma once
// The least time that a piece of work can take on this machine: all weights and keys it needs have to come
// from memory once, and all products have to be done.
//
//   floor = max(bytes / measured bandwidth, operations / measured peak)
//
// A step of B rows (of all ranks together) reads every dense weight once, of each MoE layer the experts that
// somebody chose -- E (1 - (1 - k/E)^B) of E are expected where each row draws k evenly -- and the keys and
// values of every row's context. A model that fits into the last cache can be faster than its memory floor.
#include <cstdint>
#include <vector>

#include "base/json.h"
#include "config/serve_options.h"
#include "deploy/model_setup.h"
#include "kernels/probe.h"

namespace cadre::app {

double ExpectedDistinctExperts(int64_t num_experts, int64_t top_k, double num_rows);

/// What a model's steps need.
struct ModelCost {
  double dense_bytes = 0;   ///< read by every step
  double expert_bytes = 0;  ///< one routed expert of one layer
  int64_t num_moe_layers = 0, num_experts = 0, top_k = 0;
  double operations_per_row = 0;       ///< all active weights but the head's
  double head_operations = 0;          ///< for a row whose logits are wanted
  double attention_operations = 0;     ///< a row, a layer, a position of context
  double kv_bytes = 0;                 ///< a layer, a position
  std::vector<int32_t> windows;        ///< of each layer; 0: none
  int64_t max_rows_per_step = 1;       ///< prompt tokens that one step takes
  int64_t max_sequences_per_step = 1;  ///< sequences that generate together

  static Result<ModelCost> Of(const deploy::ModelSetup& setup, const config::EngineOptions& options);
};

struct Work {
  double bytes = 0, operations = 0;
  Work& operator+=(const Work& other) {
    bytes += other.bytes;
    operations += other.operations;
    return *this;
  }
};

/// One step that gives each of `batch` sequences its next token, `context` positions behind it.
Work DecodeWork(const ModelCost& cost, double batch, double context);
/// All steps of decoding `output_len` - 1 further tokens of `batch` sequences after a prompt of `input_len`.
Work DecodeWork(const ModelCost& cost, double batch, double input_len, double output_len);
/// The prompts of `batch` sequences, up to their first tokens.
Work PrefillWork(const ModelCost& cost, double batch, double input_len);

struct Floor {
  double memory_s = 0, products_s = 0;  ///< what bounds each phase, added up over the phases
  double seconds() const { return memory_s + products_s; }
  const char* bound() const { return memory_s > products_s ? "memory" : "products"; }
};
Floor FloorOf(const Work& work, const kernels::MachineRates& rates);
inline Floor operator+(const Floor& a, const Floor& b) {
  return {a.memory_s + b.memory_s, a.products_s + b.products_s};
}

/// Measures this machine as the deployment would use it: its threads, its instruction set. Needs a buffer of
/// 1 GiB or more meanwhile, so call it before weights are loaded.
Result<kernels::MachineRates> MeasureMachine(const deploy::ModelSetup& setup,
                                             const config::EngineOptions& options);

/// The machine, for result files.
Json MachineJson(const deploy::ModelSetup& setup, const config::EngineOptions& options,
                 const kernels::MachineRates& rates);

}  // namespace cadre::app
