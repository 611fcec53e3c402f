#include "nn/feed_forward.h"

#include "kernels/elementwise.h"
#include "kernels/gemm.h"
#include "nn/adapter.h"
#include "nn/tensor_parallel.h"

namespace cadre::nn {

void* GatedRows(const StepContext& context, const FeedForwardWeights& w, int32_t layer, const void* x,
                Arena& arena) {
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
  AddLowRank(context, {layer, &LayerAdapter::gate_up}, x, w.gate_up.k, gate_up, w.gate_up.n, arena);
  kernels::SiluMul(context.device, {.num_rows = num_tokens,
                                    .inter = w.down.k,
                                    .gate_up = gate_up,
                                    .gate_up_stride = w.gate_up.n,
                                    .out = gated,
                                    .out_type = type,
                                    .out_stride = w.down.k});
  return gated;
}

Status FeedForward(const StepContext& context, const FeedForwardWeights& weights, int32_t layer,
                   const void* x, float* residual, Arena& arena) {
  const ArenaScope scope(arena);
  const void* gated = GatedRows(context, weights, layer, x, arena);
  return AddProduct(context, gated, weights.down, nullptr, {layer, &LayerAdapter::down}, residual, arena);
}

}  // namespace cadre::nn
