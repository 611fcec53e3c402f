#pragma once
// The attention half of a layer: normed rows in, the residual stream updated in place.
#include <cstdint>
#include <span>

#include "base/error.h"
#include "nn/spec.h"
#include "nn/step_context.h"
#include "nn/weights.h"
#include "tensor/arena.h"

namespace cadre::nn {

struct AttentionInput {
  const AttentionSpec* spec = nullptr;
  const AttentionWeights* weights = nullptr;
  int32_t layer = 0;
  int32_t window = 0;  ///< sliding window of this layer; 0: none
  float rms_eps = 1e-6f;
  const void* x = nullptr;     ///< [T, hidden] normed rows of kv.layout.type, without gaps
  const float* cos = nullptr;  ///< [T, rotary_dim / 2]
  const float* sin = nullptr;
  float* residual = nullptr;  ///< [T, hidden] f32, added to
};

/// Grouped-query attention: q, k, v from one product, norms, rotation, cache, attention, output product.
/// Errors: only from the sum over tensor-parallel ranks.
Status AttentionGqa(const StepContext& context, const AttentionInput& input, Arena& arena);

/// Multi-head latent attention, absorbed: queries are moved into the latent space of the cached rows, and the
/// weighted latent rows back into each head's value space, so that one cached row serves all heads, in
/// prefill as in decode. Source: DeepSeek-V2 report, section 2.1.
Status AttentionMla(const StepContext& context, const AttentionInput& input, Arena& arena);

/// Scratch bytes that either takes for `num_tokens` rows.
int64_t AttentionScratchBytes(const AttentionSpec& spec, const AttentionWeights& weights, int64_t num_tokens);

}  // namespace cadre::nn
