#include <cmath>

#include "kernels/attention.h"
#include "kernels/elementwise.h"
#include "kernels/gemm.h"
#include "nn/adapter.h"
#include "nn/attention.h"
#include "nn/tensor_parallel.h"

namespace cadre::nn {
namespace {

// Sizes of this rank's shard.
struct Shape {
  int64_t num_tokens, heads, kv_heads, head_dim, v_dim, row;  // row: columns of a [q | k | v] row
};

Shape ShapeOf(const AttentionSpec& spec, const AttentionWeights& weights, int64_t num_tokens,
              int64_t kv_heads) {
  return {.num_tokens = num_tokens,
          .heads = weights.o.k / spec.v_head_dim,
          .kv_heads = kv_heads,
          .head_dim = spec.head_dim,
          .v_dim = spec.v_head_dim,
          .row = weights.qkv.n};
}

void NormPerHead(const StepContext& context, const Shape& s, const AttentionInput& in, float* qkv) {
  kernels::RmsNormArgs norm{.num_rows = s.num_tokens,
                            .width = s.head_dim,
                            .num_heads = static_cast<int32_t>(s.heads),
                            .x = qkv,
                            .x_stride = s.row,
                            .weight = in.weights->q_norm,
                            .eps = in.rms_eps,
                            .out = qkv,
                            .out_type = DType::kF32,
                            .out_stride = s.row};
  kernels::RmsNorm(context.device, norm);
  norm.num_heads = static_cast<int32_t>(s.kv_heads);
  norm.weight = in.weights->k_norm;
  norm.x = qkv + s.heads * s.head_dim;
  norm.out = qkv + s.heads * s.head_dim;
  kernels::RmsNorm(context.device, norm);
}

// The norm over all heads together needs the sum of squares of every tensor-parallel rank's heads.
Status NormFullRow(const StepContext& context, const Shape& s, const AttentionInput& in, float* qkv,
                   Arena& arena) {
  const ArenaScope scope(arena);
  float* squares = arena.Take<float>(2 * s.num_tokens);
  const int64_t width[2] = {s.heads * s.head_dim, s.kv_heads * s.head_dim};
  const float* weight[2] = {in.weights->q_norm, in.weights->k_norm};
  const int64_t total[2] = {int64_t{in.spec->num_heads} * s.head_dim,
                            int64_t{in.spec->num_kv_heads} * s.head_dim};
  for (int64_t t = 0; t < s.num_tokens; ++t) {
    const float* x = qkv + t * s.row;
    for (int part = 0; part < 2; x += width[part++]) {
      double sum = 0;
      for (int64_t i = 0; i < width[part]; ++i) sum += static_cast<double>(x[i]) * x[i];
      squares[2 * t + part] = static_cast<float>(sum);
    }
  }
  if (context.tensor_parallel != nullptr) {
    CADRE_TRY(context.tensor_parallel->AllReduceSum(squares, 2 * s.num_tokens));
  }
  for (int64_t t = 0; t < s.num_tokens; ++t) {
    float* x = qkv + t * s.row;
    for (int part = 0; part < 2; x += width[part++]) {
      const float scale =
          1.0f / std::sqrt(squares[2 * t + part] / static_cast<float>(total[part]) + in.rms_eps);
      for (int64_t i = 0; i < width[part]; ++i) x[i] = x[i] * scale * weight[part][i];
    }
  }
  return {};
}

}  // namespace

Status AttentionGqa(const StepContext& context, const AttentionInput& in, Arena& arena) {
  const ArenaScope scope(arena);
  const kernels::KvLayerView kv = context.kv.Layer(in.layer);
  const AttentionWeights& w = *in.weights;
  const Shape s = ShapeOf(*in.spec, w, context.batch.num_tokens(), kv.num_kv_heads);

  float* qkv = arena.Take<float>(s.num_tokens * s.row);
  kernels::Gemm(context.device, {.m = s.num_tokens,
                                 .a = in.x,
                                 .a_stride = w.qkv.k,
                                 .w = w.qkv,
                                 .bias = w.qkv_bias,
                                 .c = qkv,
                                 .c_stride = s.row});
  AddLowRank(context, {in.layer, &LayerAdapter::qkv}, in.x, w.qkv.k, qkv, s.row, arena);
  if (in.spec->qk_norm == QkNorm::kPerHead) NormPerHead(context, s, in, qkv);
  if (in.spec->qk_norm == QkNorm::kFullRow) CADRE_TRY(NormFullRow(context, s, in, qkv, arena));
  kernels::Rope(context.device,
                {.num_rows = s.num_tokens,
                 .num_heads = static_cast<int32_t>(s.heads + s.kv_heads),  // q and k lie side by side
                 .head_dim = static_cast<int32_t>(s.head_dim),
                 .x = qkv,
                 .x_stride = s.row,
                 .rotary_dim = in.spec->rope.rotary_dim,
                 .interleaved = in.spec->rope.interleaved,
                 .cos = in.cos,
                 .sin = in.sin});
  const float* k = qkv + s.heads * s.head_dim;
  kernels::WriteKv(context.device, {.kv = kv,
                                    .num_tokens = s.num_tokens,
                                    .k = k,
                                    .k_stride = s.row,
                                    .v = k + s.kv_heads * s.head_dim,
                                    .v_stride = s.row,
                                    .slots = context.batch.kv_slots.data()});
  if (context.on_layer_written) context.on_layer_written(in.layer);

  void* q = arena.TakeBytes(s.num_tokens * s.heads * s.head_dim * DTypeBytes(kv.type));
  kernels::ConvertRows(context.device, s.num_tokens, s.heads * s.head_dim, qkv, s.row, q, kv.type,
                       s.heads * s.head_dim);
  void* out = arena.TakeBytes(s.num_tokens * s.heads * s.v_dim * DTypeBytes(kv.type));
  kernels::Attention(context.device, {.kv = kv,
                                      .num_heads = static_cast<int32_t>(s.heads),
                                      .q = q,
                                      .q_stride = s.heads * s.head_dim,
                                      .scale = in.spec->scale,
                                      .window = in.window,
                                      .sinks = w.sinks,
                                      .sequences = context.batch.sequences,
                                      .out = out,
                                      .out_stride = s.heads * s.v_dim});
  return AddProduct(context, out, w.o, w.o_bias, {in.layer, &LayerAdapter::o}, in.residual, arena);
}

}  // namespace cadre::nn
