#pragma once
// Low-rank additions to the products of a layer (LoRA): y += (x A^T) B^T for the rows of those sequences that
// asked for an adapter. Rows of one step may have different adapters or none.
//
// Invariant: a row's addition depends on that row and its adapter alone, and rows without one are not
// touched. So an answer does not depend on which adapters are loaded, nor on its company in the batch: A's
// product is a chain in rising k, its f32 row is multiplied with B in rising rank, and that sum is added once
// to what the base weight gave.
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/pack.h"
#include "nn/step_context.h"
#include "tensor/arena.h"

namespace cadre::nn {

/// B of one of the projections that a fused weight is made of.
struct LowRankPart {
  kernels::PackedMatrix b;   ///< kF32, n = local outputs, k = rank; the adapter's scale is multiplied in
  int64_t first_rank = 0;    ///< the first of its columns of x A^T
  int64_t first_output = 0;  ///< of the product's columns
};

/// What is added to one product; without parts: nothing.
struct LowRank {
  kernels::PackedMatrix a;  ///< n = the ranks of all parts, one behind the other; k = local inputs
  std::vector<LowRankPart> parts;
};

/// Of one layer; names as in weights.h. gate_up and down: of the dense feed-forward or of the shared experts.
struct LayerAdapter {
  LowRank qkv, q_a, q_b, kv_a, o, gate_up, down;
};

struct Adapter {
  std::vector<LayerAdapter> layers;
};

/// Which product of which layer.
struct AdapterPlace {
  int32_t layer = 0;
  LowRank LayerAdapter::*product = nullptr;
};

/// y [T, ...] += the additions of the step's adapters at `place`, for rows x [T, a.k] of the type of the rows
/// of the base weight. Row strides in elements.
void AddLowRank(const StepContext& context, AdapterPlace place, const void* x, int64_t x_stride, float* y,
                int64_t y_stride, Arena& arena);

/// Scratch that AddLowRank takes at most, for products of at most `inputs` and `outputs` local columns and
/// at most three parts of `max_rank`.
int64_t LowRankScratchBytes(int64_t num_tokens, int64_t inputs, int64_t outputs, int64_t max_rank);

}  // namespace cadre::nn
