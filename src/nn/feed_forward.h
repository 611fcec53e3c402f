#pragma once
// Dense feed-forward: down(silu(gate x) * up x). Also the shared experts of a MoE layer.
#include "base/error.h"
#include "nn/step_context.h"
#include "nn/weights.h"
#include "tensor/arena.h"

namespace cadre::nn {

/// The intermediate rows silu(gate x) * up x [T, down.k] of the matrices' type, taken from the arena.
/// `x` [T, hidden] normed rows, without gaps; `layer`: whose adapters.
void* GatedRows(const StepContext& context, const FeedForwardWeights& weights, int32_t layer, const void* x,
                Arena& arena);

/// residual [T, hidden] += the dense feed-forward of x, summed over the tensor-parallel ranks.
Status FeedForward(const StepContext& context, const FeedForwardWeights& weights, int32_t layer,
                   const void* x, float* residual, Arena& arena);

}  // namespace cadre::nn
