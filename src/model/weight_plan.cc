#include "model/weight_plan.h"

#include "base/check.h"

namespace cadre::model {
namespace {

using kernels::PackedBytes;
using kernels::PackFormat;
using kernels::RoundUp;

// Hands out places of one arena in rising order; without memory it only counts.
class Placer {
 public:
  explicit Placer(std::byte* base) : base_(base) {}

  std::byte* Take(int64_t num_bytes, int64_t& counter) {
    const int64_t taken = RoundUp(num_bytes, 64), offset = used_;
    used_ += taken;
    counter += taken;
    return base_ ? base_ + offset : nullptr;
  }
  PackedMatrix Matrix(int64_t n, int64_t k, PackFormat format, int64_t& counter) {
    return Matrix({.n = n, .k = k, .format = format}, counter);
  }
  PackedMatrix Matrix(PackedMatrix shape, int64_t& counter) {
    shape.data = Take(PackedBytes(shape), counter);
    return shape;
  }
  float* Vector(int64_t n, int64_t& counter) { return reinterpret_cast<float*>(Take(n * 4, counter)); }

  int64_t used() const { return used_; }

 private:
  std::byte* base_;
  int64_t used_ = 0;
};

// One walk over all weights in a fixed order. Planning and placing are the same code, so they cannot
// disagree.
class Walk {
 public:
  Walk(const ModelSpec& spec, const WeightLayout& layout, const ShardShape& shard, std::byte* dense,
       std::byte* experts)
      : spec_(spec),
        layout_(layout),
        shard_(shard),
        format_(layout.type == DType::kBf16 ? PackFormat::kBf16 : PackFormat::kF32),
        dense_(dense),
        experts_(experts) {}

  ModelWeights Model() {
    ModelWeights weights;
    weights.type = layout_.type;
    weights.embedding_is_head = spec_.tie_embeddings && shard_.vocab.size() == spec_.vocab_size;
    if (!weights.embedding_is_head) {
      weights.embedding =
          dense_.Take(spec_.vocab_size * spec_.hidden * DTypeBytes(layout_.type), parts.embedding);
    }
    size_t moe_layer = 0;
    for (const LayerSpec& layer : spec_.layers) {
      layer_ = &layer;
      weights.layers.push_back(OneLayer(layer.moe ? &shard_.slots[moe_layer++] : nullptr));
    }
    weights.final_norm = dense_.Vector(spec_.hidden, parts.norms);
    weights.lm_head = dense_.Matrix(shard_.vocab.size(), spec_.hidden, format_, parts.lm_head);
    weights.vocab_begin = shard_.vocab.begin;
    return weights;
  }

  WeightPlan::Parts parts;
  int64_t dense_bytes() const { return dense_.used(); }
  int64_t expert_bytes() const { return experts_.used(); }

 private:
  LayerWeights OneLayer(const std::vector<int32_t>* slots) {
    LayerWeights layer;
    layer.attn_norm = dense_.Vector(spec_.hidden, parts.norms);
    layer.attention = spec_.attention.kind == AttentionKind::kMla ? Mla() : Gqa();
    layer.ffn_norm = dense_.Vector(spec_.hidden, parts.norms);
    if (slots) {
      layer.moe = Moe(*slots);
    } else {
      layer.dense = FeedForward(false, shard_.dense_inter, parts.feed_forward);
    }
    return layer;
  }

  // A linear layer whose columns begin at `col_begin` of the whole one.
  PackedMatrix Linear(LinearKind kind, int64_t n, int64_t k, int64_t col_begin, int64_t& counter) {
    const bool plain = (layer_->plain_linears >> static_cast<int>(kind) & 1) != 0;
    return dense_.Matrix(Shape(!plain, n, k, col_begin), counter);
  }
  PackedMatrix Shape(bool quantized, int64_t n, int64_t k, int64_t col_begin) const {
    PackedMatrix shape{.n = n, .k = k, .format = format_};
    if (!layout_.fp8 || !quantized) return shape;
    shape.format = layout_.type == DType::kBf16 ? PackFormat::kFp8 : PackFormat::kFp8F32;
    shape.scale_block = spec_.quant.block_cols;
    if (shape.scale_block > 0) shape.scale_phase = static_cast<int32_t>(col_begin % shape.scale_block);
    return shape;
  }

  AttentionWeights Gqa() {
    const AttentionSpec& a = spec_.attention;
    const int64_t heads = shard_.heads.size(), kv_heads = shard_.kv_heads.size();
    AttentionWeights w;
    w.qkv = Linear(LinearKind::kQkv, (heads + kv_heads) * a.head_dim + kv_heads * a.v_head_dim, spec_.hidden,
                   0, parts.attention);
    if (a.qkv_bias) w.qkv_bias = dense_.Vector(w.qkv.n, parts.attention);
    if (a.qk_norm != QkNorm::kNone) {
      const bool whole = a.qk_norm == QkNorm::kFullRow;
      w.q_norm = dense_.Vector(whole ? heads * a.head_dim : a.head_dim, parts.attention);
      w.k_norm = dense_.Vector(whole ? kv_heads * a.head_dim : a.head_dim, parts.attention);
    }
    if (a.sinks) w.sinks = dense_.Vector(heads, parts.attention);
    Output(w);
    return w;
  }

  AttentionWeights Mla() {
    const AttentionSpec& a = spec_.attention;
    const int64_t heads = shard_.heads.size();
    AttentionWeights w;
    if (a.q_lora_rank > 0) {
      w.q_a = Linear(LinearKind::kQueryA, a.q_lora_rank, spec_.hidden, 0, parts.attention);
      if (a.qkv_bias) w.q_a_bias = dense_.Vector(w.q_a.n, parts.attention);
      w.q_a_norm = dense_.Vector(a.q_lora_rank, parts.attention);
    }
    const int64_t query_in = a.q_lora_rank > 0 ? a.q_lora_rank : spec_.hidden;
    w.q_b = Linear(LinearKind::kQueryB, heads * a.head_dim, query_in, 0, parts.attention);
    w.kv_a = Linear(LinearKind::kKvA, a.kv_lora_rank + a.qk_rope_dim, spec_.hidden, 0, parts.attention);
    if (a.qkv_bias) w.kv_a_bias = dense_.Vector(w.kv_a.n, parts.attention);
    w.kv_a_norm = dense_.Vector(a.kv_lora_rank, parts.attention);
    // A scale of kv_b belongs to a row; turned round, that would be a column. What a token reads of these is
    // small beside the experts, so they stay unquantised.
    for (int64_t h = 0; h < heads; ++h) {
      w.w_uk.push_back(dense_.Matrix(a.kv_lora_rank, a.qk_nope_dim, format_, parts.attention));
      w.w_uv.push_back(dense_.Matrix(a.v_head_dim, a.kv_lora_rank, format_, parts.attention));
    }
    Output(w);
    return w;
  }

  void Output(AttentionWeights& w) {
    const int64_t v_dim = spec_.attention.v_head_dim;
    w.o = Linear(LinearKind::kOut, spec_.hidden, shard_.heads.size() * v_dim, shard_.heads.begin * v_dim,
                 parts.attention);
    if (!spec_.attention.o_bias) return;
    // Placed on every rank, so that all ranks' arenas are alike; used on the first.
    const float* bias = dense_.Vector(spec_.hidden, parts.attention);
    if (layout_.tp_rank == 0) w.o_bias = bias;
  }

  FeedForwardWeights FeedForward(bool shared, Range inter, int64_t& counter) {
    FeedForwardWeights w;
    w.gate_up = Linear(shared ? LinearKind::kSharedGateUp : LinearKind::kGateUp, 2 * inter.size(),
                       spec_.hidden, 0, counter);
    w.down = Linear(shared ? LinearKind::kSharedDown : LinearKind::kDown, spec_.hidden, inter.size(),
                    inter.begin, counter);
    return w;
  }

  MoeWeights Moe(const std::vector<int32_t>& slots) {
    const MoeSpec& moe = spec_.moe;
    MoeWeights w;
    w.router = dense_.Matrix(moe.num_experts, spec_.hidden, PackFormat::kF32, parts.routers);
    if (moe.router_bias) w.router_bias = dense_.Vector(moe.num_experts, parts.routers);
    if (moe.selection_bias) w.selection_bias = dense_.Vector(moe.num_experts, parts.routers);
    if (moe.shared_inter > 0) w.shared = FeedForward(true, shard_.shared_inter, parts.shared_experts);
    if (moe.shared_gate)
      w.shared_gate = dense_.Matrix(1, spec_.hidden, PackFormat::kF32, parts.shared_experts);
    w.logical = slots;
    const int64_t inter = shard_.expert_inter.size();
    const bool quantized = !spec_.plain_experts;
    const PackedMatrix gate_up = Shape(quantized, 2 * RoundUp(inter, kernels::kPanelRows), spec_.hidden, 0);
    const PackedMatrix down = Shape(quantized, spec_.hidden, inter, shard_.expert_inter.begin);
    int64_t unused = 0;
    for (size_t s = 0; s < slots.size(); ++s) {
      ExpertWeights expert;
      expert.gate_up = experts_.Matrix(gate_up, unused);
      expert.down = experts_.Matrix(down, unused);
      if (moe.expert_bias) {
        expert.gate_up_bias = experts_.Vector(expert.gate_up.n, unused);
        expert.down_bias = experts_.Vector(spec_.hidden, unused);
      }
      w.experts.push_back(expert);
    }
    return w;
  }

  const ModelSpec& spec_;
  const WeightLayout& layout_;
  const ShardShape& shard_;
  PackFormat format_;  // of what is not fp8
  const LayerSpec* layer_ = nullptr;
  Placer dense_, experts_;
};

}  // namespace

Result<WeightPlan> PlanWeights(const ModelSpec& spec, const WeightLayout& layout) {
  WeightPlan plan;
  plan.layout = layout;
  CADRE_ASSIGN(plan.shard, MakeShard(spec, layout));
  Walk walk(spec, layout, plan.shard, nullptr, nullptr);
  walk.Model();
  plan.dense_bytes = walk.dense_bytes();
  plan.expert_bytes = walk.expert_bytes();
  plan.parts = walk.parts;
  return plan;
}

ModelWeights PlaceWeights(const ModelSpec& spec, const WeightPlan& plan, std::byte* dense,
                          std::byte* experts) {
  Walk walk(spec, plan.layout, plan.shard, dense, experts);
  ModelWeights weights = walk.Model();
  CADRE_CHECK(walk.dense_bytes() == plan.dense_bytes && walk.expert_bytes() == plan.expert_bytes);
  return weights;
}

}  // namespace cadre::model
