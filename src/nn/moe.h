#pragma once
// The expert half of a layer, one page: norm -> router -> dispatch -> experts -> combine, shared experts
// while the rows travel.
//
// The ranks of a tensor-parallel replica hold the same rows. Each handles its own share of them
// (a2a::SplitRows), so that a row travels once; the sums come together again with the shared experts' partial
// results.
#include <cstdint>

#include "base/error.h"
#include "eplb/expert_map.h"
#include "kernels/elementwise.h"
#include "nn/spec.h"
#include "nn/step_context.h"
#include "nn/weights.h"
#include "tensor/arena.h"

namespace cadre::nn {

struct MoeInput {
  const MoeSpec* spec = nullptr;
  const MoeWeights* weights = nullptr;
  const eplb::ExpertMap* map = nullptr;  ///< this layer's, of the step's epoch
  int32_t layer = 0;                     ///< among all layers
  int32_t moe_layer = 0;                 ///< this layer's place among the MoE layers
  uint32_t* slot_counts = nullptr;       ///< [slots], this layer's, added to; null: nobody counts
  const float* norm_weight = nullptr;    ///< [hidden]
  float rms_eps = 1e-6f;
  float* residual = nullptr;  ///< [T, hidden] f32: read by the norm, added to
};

/// Errors: only from the exchange between ranks.
Status Moe(const StepContext& context, const MoeInput& input, Arena& arena);

/// Scratch bytes for `num_tokens` rows of this rank and at most `expert_rows` rows for its experts.
int64_t MoeScratchBytes(const MoeSpec& spec, const MoeWeights& weights, int64_t num_tokens,
                        int64_t expert_rows);

}  // namespace cadre::nn
