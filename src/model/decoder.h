#pragma once
// The forward pass of every family: embedding, layers, final norm, head. What differs between families is
// data (ModelSpec), not code.
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/error.h"
#include "model/spec.h"
#include "model/weights.h"
#include "nn/step_context.h"
#include "tensor/arena.h"

namespace cadre::model {

struct DecoderOptions {
  int64_t max_num_tokens = 0;  ///< rows of the largest step of this rank
  /// Rows that the exchange can bring to this rank's experts in one step: all ranks' rows times the choices
  /// that can fall here.
  int64_t max_expert_rows = 0;
  int64_t max_logit_rows = 256;  ///< of one call to Logits
  int64_t max_adapter_rank = 0;  ///< of the adapters that steps may bring; 0: none
};

/// Runs on the engine thread of one rank. `spec` and `weights` must outlive it.
class Decoder {
 public:
  Decoder(const ModelSpec& spec, const ModelWeights& weights, DecoderOptions options);

  /// One step: keys and values of all rows enter the cache, and the final hidden rows are kept for Logits.
  /// A step without rows still takes part in every exchange. Errors: only from the exchange between ranks.
  Status Forward(const nn::StepContext& context);

  /// Logits f32 [rows.size(), vocab_size] of rows of the last step. Every rank of a replica calls it with the
  /// same rows (at most max_logit_rows) and gets the same logits.
  Status Logits(const nn::StepContext& context, std::span<const int32_t> rows, float* logits);

  /// Called with the residual stream [T, hidden] after the embedding (layer 0) and after each layer; for
  /// tests.
  std::function<void(int32_t layer, const float* residual)> on_residual;

  /// Address space that a decoder of these options takes for activations.
  static int64_t ScratchBytes(const ModelSpec& spec, const ModelWeights& weights,
                              const DecoderOptions& options);

 private:
  Status Layer(const nn::StepContext& context, int32_t layer, const float* cos, const float* sin,
               float* residual);

  const ModelSpec& spec_;
  const ModelWeights& weights_;
  DecoderOptions options_;
  std::vector<float> inverse_frequencies_;
  std::vector<int32_t> moe_layer_idx_;  // [layers] place among the MoE layers, -1: dense
  Arena arena_;
  void* final_rows_ = nullptr;  // [T, hidden] of the weights' type: what the head multiplies
};

}  // namespace cadre::model
