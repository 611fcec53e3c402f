#include "model/decoder.h"

#include <cstring>

#include "kernels/elementwise.h"
#include "kernels/gemm.h"
#include "model/shard.h"
#include "nn/adapter.h"
#include "nn/attention.h"
#include "nn/feed_forward.h"
#include "nn/moe.h"
#include "nn/rope.h"

namespace cadre::model {

namespace {

// Beside the layer that takes most, so a bound.
int64_t AdapterScratchBytes(const ModelWeights& weights, const DecoderOptions& options) {
  int64_t inputs = 0, outputs = 0;
  const auto widen = [&](const PackedMatrix& w) {
    inputs = std::max(inputs, w.k);
    outputs = std::max(outputs, w.n);
  };
  for (const LayerWeights& w : weights.layers) {
    const AttentionWeights& a = w.attention;
    for (const PackedMatrix* matrix : {&a.qkv, &a.q_a, &a.q_b, &a.kv_a, &a.o}) widen(*matrix);
    for (const FeedForwardWeights* f : {&w.dense, &w.moe.shared}) {
      widen(f->gate_up);
      widen(f->down);
    }
  }
  return nn::LowRankScratchBytes(options.max_num_tokens, inputs, outputs, options.max_adapter_rank);
}

}  // namespace

Decoder::Decoder(const ModelSpec& spec, const ModelWeights& weights, DecoderOptions options)
    : spec_(spec),
      weights_(weights),
      options_(options),
      inverse_frequencies_(nn::RopeInverseFrequencies(spec.attention.rope)),
      arena_(ScratchBytes(spec, weights, options)) {
  int32_t num_moe_layers = 0;
  for (const LayerSpec& layer : spec.layers) moe_layer_idx_.push_back(layer.moe ? num_moe_layers++ : -1);
}

int64_t Decoder::ScratchBytes(const ModelSpec& spec, const ModelWeights& weights,
                              const DecoderOptions& options) {
  constexpr int64_t kFloat = sizeof(float);
  constexpr int64_t kSlack = 4096;  // cache-line rounding of the takes
  int64_t layer = 0;
  for (size_t i = 0; i < weights.layers.size(); ++i) {
    const LayerWeights& w = weights.layers[i];
    layer = std::max(layer, nn::AttentionScratchBytes(spec.attention, w.attention, options.max_num_tokens));
    layer = std::max(
        layer, spec.layers[i].moe
                   ? nn::MoeScratchBytes(spec.moe, w.moe, options.max_num_tokens, options.max_expert_rows)
                   : options.max_num_tokens * kFloat * (w.dense.gate_up.n + w.dense.down.k + spec.hidden));
  }
  // Logits begins where the layers' scratch began: gathered rows, and over several ranks its part and all
  // parts.
  const int64_t logit_columns =
      spec.hidden + (weights.lm_head.n < spec.vocab_size ? weights.lm_head.n + spec.vocab_size : 0);
  layer = std::max(layer, options.max_logit_rows * logit_columns * kFloat);
  layer += AdapterScratchBytes(weights, options);
  const int64_t angles = int64_t{spec.attention.rope.rotary_dim} * options.max_num_tokens * kFloat;
  const int64_t rows = int64_t{spec.hidden} * options.max_num_tokens * kFloat;
  return angles + 3 * rows + layer + kSlack;  // residual, normed, final rows
}

Status Decoder::Forward(const nn::StepContext& context) {
  arena_.Rewind(0);
  const nn::StepBatch& batch = context.batch;
  const int64_t num_tokens = batch.num_tokens();
  const auto half = static_cast<int64_t>(inverse_frequencies_.size());
  final_rows_ = arena_.TakeBytes(num_tokens * spec_.hidden * DTypeBytes(weights_.type));
  float* cos = arena_.Take<float>(num_tokens * half);
  float* sin = arena_.Take<float>(num_tokens * half);
  nn::RopeAngles(inverse_frequencies_, static_cast<float>(spec_.attention.rope.attention_factor),
                 batch.positions, cos, sin);
  float* residual = arena_.Take<float>(num_tokens * spec_.hidden);
  if (weights_.embedding_is_head) {
    kernels::GatherPackedRows(context.device, num_tokens, batch.token_ids.data(), weights_.lm_head,
                              spec_.embedding_multiplier, residual);
  } else {
    kernels::GatherRows(context.device, num_tokens, batch.token_ids.data(), weights_.embedding, weights_.type,
                        spec_.hidden, spec_.embedding_multiplier, residual);
  }
  if (on_residual) on_residual(0, residual);
  for (int32_t layer = 0; layer < spec_.num_layers(); ++layer) {
    CADRE_TRY(Layer(context, layer, cos, sin, residual));
    if (on_residual) on_residual(layer + 1, residual);
  }
  kernels::RmsNorm(context.device, {.num_rows = num_tokens,
                                    .width = spec_.hidden,
                                    .x = residual,
                                    .x_stride = spec_.hidden,
                                    .weight = weights_.final_norm,
                                    .eps = spec_.rms_eps,
                                    .out = final_rows_,
                                    .out_type = weights_.type,
                                    .out_stride = spec_.hidden});
  return {};
}

Status Decoder::Layer(const nn::StepContext& context, int32_t layer, const float* cos, const float* sin,
                      float* residual) {
  const ArenaScope scope(arena_);
  const LayerWeights& w = weights_.layers[static_cast<size_t>(layer)];
  const LayerSpec& layer_spec = spec_.layers[static_cast<size_t>(layer)];
  const int64_t num_tokens = context.batch.num_tokens();
  kernels::RmsNormArgs norm{.num_rows = num_tokens,
                            .width = spec_.hidden,
                            .x = residual,
                            .x_stride = spec_.hidden,
                            .weight = w.attn_norm,
                            .eps = spec_.rms_eps,
                            .out = arena_.TakeBytes(num_tokens * spec_.hidden * DTypeBytes(weights_.type)),
                            .out_type = weights_.type,
                            .out_stride = spec_.hidden};
  kernels::RmsNorm(context.device, norm);
  const nn::AttentionInput attention{.spec = &spec_.attention,
                                     .weights = &w.attention,
                                     .layer = layer,
                                     .window = layer_spec.window,
                                     .rms_eps = spec_.rms_eps,
                                     .x = norm.out,
                                     .cos = cos,
                                     .sin = sin,
                                     .residual = residual};
  if (spec_.attention.kind == nn::AttentionKind::kMla) {
    CADRE_TRY(nn::AttentionMla(context, attention, arena_));
  } else {
    CADRE_TRY(nn::AttentionGqa(context, attention, arena_));
  }
  if (layer_spec.moe) {
    const auto moe_layer = static_cast<size_t>(moe_layer_idx_[static_cast<size_t>(layer)]);
    return nn::Moe(context,
                   {.spec = &spec_.moe,
                    .weights = &w.moe,
                    .map = context.expert_maps[moe_layer],
                    .layer = layer,
                    .moe_layer = static_cast<int32_t>(moe_layer),
                    .slot_counts = context.SlotCounts(moe_layer),
                    .norm_weight = w.ffn_norm,
                    .rms_eps = spec_.rms_eps,
                    .residual = residual},
                   arena_);
  }
  norm.weight = w.ffn_norm;
  kernels::RmsNorm(context.device, norm);
  return nn::FeedForward(context, w.dense, layer, norm.out, residual, arena_);
}

Status Decoder::Logits(const nn::StepContext& context, std::span<const int32_t> rows, float* logits) {
  const ArenaScope scope(arena_);
  const auto num_rows = static_cast<int64_t>(rows.size());
  const int64_t row_bytes = spec_.hidden * DTypeBytes(weights_.type);
  auto* gathered = static_cast<std::byte*>(arena_.TakeBytes(num_rows * row_bytes));
  for (int64_t i = 0; i < num_rows; ++i) {
    std::memcpy(gathered + i * row_bytes,
                static_cast<std::byte*>(final_rows_) + rows[static_cast<size_t>(i)] * row_bytes,
                static_cast<size_t>(row_bytes));
  }
  kernels::GemmArgs gemm{.m = num_rows,
                         .a = gathered,
                         .a_stride = spec_.hidden,
                         .w = weights_.lm_head,
                         .c = logits,
                         .c_stride = weights_.lm_head.n};
  if (context.tensor_parallel == nullptr) {
    kernels::Gemm(context.device, gemm);
    return {};
  }
  // Each rank of the replica has the logits of its part of the vocabulary; all get all of them, rank 0 needs
  // them.
  const a2a::Collective& tp = *context.tensor_parallel;
  float* own = arena_.Take<float>(num_rows * weights_.lm_head.n);
  gemm.c = own;
  kernels::Gemm(context.device, gemm);
  std::vector<int64_t> part_bytes, widths;
  for (int r = 0; r < tp.size(); ++r) {
    widths.push_back(SplitRange(spec_.vocab_size, tp.size(), r).size());
    part_bytes.push_back(num_rows * widths.back() * static_cast<int64_t>(sizeof(float)));
  }
  float* parts = arena_.Take<float>(num_rows * spec_.vocab_size);
  CADRE_TRY(context.tensor_parallel->AllGather(own, part_bytes, parts));
  for (int64_t begin = 0, r = 0; r < tp.size(); begin += widths[static_cast<size_t>(r++)]) {
    const int64_t width = widths[static_cast<size_t>(r)];
    for (int64_t row = 0; row < num_rows; ++row, parts += width) {
      std::memcpy(logits + row * spec_.vocab_size + begin, parts, static_cast<size_t>(width) * sizeof(float));
    }
  }
  return {};
}

}  // namespace cadre::model
