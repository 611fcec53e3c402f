#include "nn/feed_forward.h"

#include "kernels/elementwise.h"
#include "kernels/gemm.h"
#include "nn/tensor_parallel.h"

namespace cadre::nn {

void* GatedRows(const StepContext& context, const FeedForwardWeights& w, const void* x, Arena& arena) {
  const int64_t num_tokens = context.batch.num_tokens();
  const DType type = context.kv.layout.type;
  void* gated = arena.TakeBytes(num_tokens * w.down.k * DTypeBytes(type));
  const ArenaScope scope(arena);
  float* gate_up = arena.Take<float>(num_tokens * w.gate_up.n);
  kernels::Gemm(context.device, {.m = num_tokens,
                                 .a = x,
                                 .a_stride = w.gate_up.k,
                                 .w = w.gate_up,
                                 .c = gate_up,
                                 .c_stride = w.gate_up.n});
  kernels::SiluMul(context.device, {.num_rows = num_tokens,
                                    .inter = w.down.k,
                                    .gate_up = gate_up,
                                    .gate_up_stride = w.gate_up.n,
                                    .out = gated,
                                    .out_type = type,
                                    .out_stride = w.down.k});
  return gated;
}

Status FeedForward(const StepContext& context, const FeedForwardWeights& weights, const void* x,
                   float* residual, Arena& arena) {
  const ArenaScope scope(arena);
  const void* gated = GatedRows(context, weights, x, arena);
  return AddProduct(context, gated, weights.down, nullptr, residual, arena);
}

}  // namespace cadre::nn
