#include <vector>

#include "kernels/attention.h"
#include "kernels/elementwise.h"
#include "kernels/gemm.h"
#include "nn/adapter.h"
#include "nn/attention.h"
#include "nn/tensor_parallel.h"

namespace cadre::nn {
namespace {

struct Shape {
  int64_t num_tokens, heads, nope, rope, lora, v_dim;
  DType type;                                     // of matmul inputs and of the cache
  int64_t q_head() const { return nope + rope; }  // columns of a projected query head
  int64_t latent() const { return lora + rope; }  // columns of a cached row and of an absorbed query head
  int64_t bytes(int64_t count) const { return count * DTypeBytes(type); }
};

std::byte* At(void* base, const Shape& s, int64_t element) {
  return static_cast<std::byte*>(base) + s.bytes(element);
}

// f32 query heads [T, heads, nope + rope], rotary part rotated.
float* ProjectQueries(const StepContext& context, const AttentionInput& in, const Shape& s, Arena& arena) {
  const AttentionWeights& w = *in.weights;
  const int64_t row = s.heads * s.q_head();
  float* q = arena.Take<float>(s.num_tokens * row);
  const void* input = in.x;
  if (w.q_a.data != nullptr) {
    float* low = arena.Take<float>(s.num_tokens * w.q_a.n);
    void* normed = arena.TakeBytes(s.bytes(s.num_tokens * w.q_a.n));
    kernels::Gemm(context.device, {.m = s.num_tokens,
                                   .a = in.x,
                                   .a_stride = w.q_a.k,
                                   .w = w.q_a,
                                   .bias = w.q_a_bias,
                                   .c = low,
                                   .c_stride = w.q_a.n});
    AddLowRank(context, {in.layer, &LayerAdapter::q_a}, in.x, w.q_a.k, low, w.q_a.n, arena);
    kernels::RmsNorm(context.device, {.num_rows = s.num_tokens,
                                      .width = w.q_a.n,
                                      .x = low,
                                      .x_stride = w.q_a.n,
                                      .weight = w.q_a_norm,
                                      .eps = in.spec->latent_norm_eps,
                                      .out = normed,
                                      .out_type = s.type,
                                      .out_stride = w.q_a.n});
    input = normed;
  }
  kernels::Gemm(context.device,
                {.m = s.num_tokens, .a = input, .a_stride = w.q_b.k, .w = w.q_b, .c = q, .c_stride = row});
  AddLowRank(context, {in.layer, &LayerAdapter::q_b}, input, w.q_b.k, q, row, arena);
  kernels::Rope(context.device, {.num_rows = s.num_tokens,
                                 .num_heads = static_cast<int32_t>(s.heads),
                                 .head_dim = static_cast<int32_t>(s.q_head()),
                                 .x = q,
                                 .x_stride = row,
                                 .rotary_begin = static_cast<int32_t>(s.nope),
                                 .rotary_dim = static_cast<int32_t>(s.rope),
                                 .interleaved = in.spec->rope.interleaved,
                                 .cos = in.cos,
                                 .sin = in.sin});
  return q;
}

// The latent row of each token: normed compressed part, rotated shared key part; written into the cache.
void WriteLatent(const StepContext& context, const AttentionInput& in, const Shape& s,
                 const kernels::KvLayerView& kv, Arena& arena) {
  const ArenaScope scope(arena);
  const AttentionWeights& w = *in.weights;
  float* latent = arena.Take<float>(s.num_tokens * s.latent());
  kernels::Gemm(context.device, {.m = s.num_tokens,
                                 .a = in.x,
                                 .a_stride = w.kv_a.k,
                                 .w = w.kv_a,
                                 .bias = w.kv_a_bias,
                                 .c = latent,
                                 .c_stride = s.latent()});
  AddLowRank(context, {in.layer, &LayerAdapter::kv_a}, in.x, w.kv_a.k, latent, s.latent(), arena);
  kernels::RmsNorm(context.device, {.num_rows = s.num_tokens,
                                    .width = s.lora,
                                    .x = latent,
                                    .x_stride = s.latent(),
                                    .weight = w.kv_a_norm,
                                    .eps = in.spec->latent_norm_eps,
                                    .out = latent,
                                    .out_type = DType::kF32,
                                    .out_stride = s.latent()});
  kernels::Rope(context.device, {.num_rows = s.num_tokens,
                                 .num_heads = 1,
                                 .head_dim = static_cast<int32_t>(s.latent()),
                                 .x = latent,
                                 .x_stride = s.latent(),
                                 .rotary_begin = static_cast<int32_t>(s.lora),
                                 .rotary_dim = static_cast<int32_t>(s.rope),
                                 .interleaved = in.spec->rope.interleaved,
                                 .cos = in.cos,
                                 .sin = in.sin});
  kernels::WriteKv(context.device, {.kv = kv,
                                    .num_tokens = s.num_tokens,
                                    .k = latent,
                                    .k_stride = s.latent(),
                                    .slots = context.batch.kv_slots.data()});
}

// Absorbed queries [T, heads, lora + rope]: q_nope * W_UK beside the rotated part.
void* AbsorbQueries(const StepContext& context, const AttentionInput& in, const Shape& s, const float* q,
                    Arena& arena) {
  const int64_t from = s.heads * s.q_head(), to = s.heads * s.latent();
  void* rounded = arena.TakeBytes(s.bytes(s.num_tokens * from));
  void* absorbed = arena.TakeBytes(s.bytes(s.num_tokens * to));
  kernels::ConvertRows(context.device, s.num_tokens, from, q, from, rounded, s.type, from);
  std::vector<kernels::GemmArgs> products;
  for (int64_t h = 0; h < s.heads; ++h) {
    products.push_back({.m = s.num_tokens,
                        .a = At(rounded, s, h * s.q_head()),
                        .a_stride = from,
                        .w = in.weights->w_uk[static_cast<size_t>(h)],
                        .c = At(absorbed, s, h * s.latent()),
                        .c_type = s.type,
                        .c_stride = to});
    kernels::ConvertRows(context.device, s.num_tokens, s.rope, q + h * s.q_head() + s.nope, from,
                         At(absorbed, s, h * s.latent() + s.lora), s.type, to);
  }
  kernels::GemmBatch(context.device, products);
  return absorbed;
}

}  // namespace

Status AttentionMla(const StepContext& context, const AttentionInput& in, Arena& arena) {
  const ArenaScope scope(arena);
  const kernels::KvLayerView kv = context.kv.Layer(in.layer);
  const AttentionSpec& spec = *in.spec;
  const Shape s{.num_tokens = context.batch.num_tokens(),
                .heads = static_cast<int64_t>(in.weights->w_uk.size()),
                .nope = spec.qk_nope_dim,
                .rope = spec.qk_rope_dim,
                .lora = spec.kv_lora_rank,
                .v_dim = spec.v_head_dim,
                .type = kv.type};
  WriteLatent(context, in, s, kv, arena);
  if (context.on_layer_written) context.on_layer_written(in.layer);
  const float* q = ProjectQueries(context, in, s, arena);
  const void* absorbed = AbsorbQueries(context, in, s, q, arena);

  void* latent = arena.TakeBytes(s.bytes(s.num_tokens * s.heads * s.lora));
  kernels::Attention(context.device, {.kv = kv,
                                      .num_heads = static_cast<int32_t>(s.heads),
                                      .q = absorbed,
                                      .q_stride = s.heads * s.latent(),
                                      .scale = spec.scale,
                                      .window = in.window,
                                      .sinks = in.weights->sinks,
                                      .sequences = context.batch.sequences,
                                      .out = latent,
                                      .out_stride = s.heads * s.lora});
  void* values = arena.TakeBytes(s.bytes(s.num_tokens * s.heads * s.v_dim));
  std::vector<kernels::GemmArgs> products;
  for (int64_t h = 0; h < s.heads; ++h) {
    products.push_back({.m = s.num_tokens,
                        .a = At(latent, s, h * s.lora),
                        .a_stride = s.heads * s.lora,
                        .w = in.weights->w_uv[static_cast<size_t>(h)],
                        .c = At(values, s, h * s.v_dim),
                        .c_type = s.type,
                        .c_stride = s.heads * s.v_dim});
  }
  kernels::GemmBatch(context.device, products);
  return AddProduct(context, values, in.weights->o, in.weights->o_bias, {in.layer, &LayerAdapter::o},
                    in.residual, arena);
}

int64_t AttentionScratchBytes(const AttentionSpec& spec, const AttentionWeights& w, int64_t num_tokens) {
  constexpr int64_t kTakes = 12;  // each is rounded up to a cache line
  int64_t columns = 0;            // f32 columns a token, an upper bound for both modes
  if (spec.kind == AttentionKind::kGqa) {
    columns = w.qkv.n * 2 + w.o.k + w.o.n + 2;
  } else {
    const auto heads = static_cast<int64_t>(w.w_uk.size());
    const int64_t q_head = spec.qk_nope_dim + spec.qk_rope_dim, latent = spec.kv_lora_rank + spec.qk_rope_dim;
    columns =
        2 * w.q_a.n + latent + heads * (2 * q_head + latent + spec.kv_lora_rank + spec.v_head_dim) + w.o.n;
  }
  return columns * num_tokens * static_cast<int64_t>(sizeof(float)) + kTakes * 64;
}

}  // namespace cadre::nn
