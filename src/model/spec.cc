#include "model/spec.h"

#include <algorithm>

namespace cadre::model {
namespace {

int64_t AttentionParameters(const ModelSpec& spec) {
  const AttentionSpec& a = spec.attention;
  const int64_t hidden = spec.hidden, heads = a.num_heads;
  if (a.kind == AttentionKind::kGqa) {
    return hidden * (heads * a.head_dim + a.num_kv_heads * (a.head_dim + a.v_head_dim)) +
           heads * a.v_head_dim * hidden;
  }
  const int64_t q =
      a.q_lora_rank > 0 ? a.q_lora_rank * (hidden + heads * a.head_dim) : hidden * heads * a.head_dim;
  return q + hidden * (a.kv_lora_rank + a.qk_rope_dim) +
         a.kv_lora_rank * heads * (a.qk_nope_dim + a.v_head_dim) + heads * a.v_head_dim * hidden;
}

// Matrices alone: norms and biases are below a thousandth.
int64_t LayerParameters(const ModelSpec& spec, bool moe, int64_t experts) {
  const int64_t ffn = 3 * int64_t{spec.hidden};
  if (!moe) return AttentionParameters(spec) + ffn * spec.dense_inter;
  return AttentionParameters(spec) + ffn * (experts * spec.moe.inter + spec.moe.shared_inter) +
         int64_t{spec.hidden} * spec.moe.num_experts;
}

}  // namespace

int32_t ModelSpec::num_moe_layers() const {
  return static_cast<int32_t>(
      std::count_if(layers.begin(), layers.end(), [](const LayerSpec& l) { return l.moe; }));
}

int64_t ModelSpec::num_parameters() const {
  int64_t sum = vocab_size * hidden * (tie_embeddings ? 1 : 2);
  for (const LayerSpec& layer : layers) sum += LayerParameters(*this, layer.moe, moe.num_experts);
  return sum;
}

int64_t ModelSpec::num_active_parameters() const {
  int64_t sum = vocab_size * hidden;
  for (const LayerSpec& layer : layers) sum += LayerParameters(*this, layer.moe, moe.top_k);
  return sum;
}

}  // namespace cadre::model
