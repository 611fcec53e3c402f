#pragma once
// What the layers need to know about an architecture: numbers, no names of families.
#include <cstdint>

#include "kernels/grouped_gemm.h"
#include "kernels/topk.h"

namespace cadre::nn {

enum class AttentionKind : uint8_t {
  kGqa,  ///< keys and values a KV head; also plain multi-head and multi-query
  kMla,  ///< one latent row a token (DeepSeek): kv_lora_rank columns, then qk_rope_dim rotated ones
};

/// RMS norm of queries and keys before rotation.
enum class QkNorm : uint8_t {
  kNone,
  kPerHead,  ///< over head_dim, one weight [head_dim] for all heads (Qwen3)
  kFullRow,  ///< over all heads together, weights [num_heads * head_dim] and [num_kv_heads * head_dim]
             ///< (OLMoE)
};

enum class RopeScaling : uint8_t { kNone, kLinear, kYarn, kLlama3 };

/// Rotary embedding. RopeInverseFrequencies (rope.h) turns it into the table that the decoder uses.
struct RopeSpec {
  double theta = 10000.0;
  int32_t rotary_dim =
      0;  ///< rotated columns of a head: the first ones; MLA: qk_rope_dim, all of the rotary part
  bool interleaved = false;  ///< pairs (2i, 2i + 1) instead of (i, i + rotary_dim / 2)
  RopeScaling scaling = RopeScaling::kNone;
  double factor = 1.0;                                   ///< kLinear, kYarn, kLlama3
  double original_max_position = 0;                      ///< kYarn, kLlama3
  double beta_fast = 32.0, beta_slow = 1.0;              ///< kYarn
  bool truncate = true;                                  ///< kYarn: round the border dimensions to whole ones
  double low_freq_factor = 1.0, high_freq_factor = 1.0;  ///< kLlama3
  /// cos and sin are multiplied with it (YaRN's attention factor, ready made); 1 elsewhere.
  double attention_factor = 1.0;
};

struct AttentionSpec {
  AttentionKind kind = AttentionKind::kGqa;
  int32_t num_heads = 0;
  int32_t num_kv_heads = 0;  ///< kGqa; for kMla 1: the latent row serves all heads
  int32_t head_dim = 0;      ///< columns of a query head; kMla: qk_nope_dim + qk_rope_dim
  int32_t v_head_dim = 0;    ///< columns of a value head (kMla: after w_uv)
  float scale = 1.0f;        ///< scores are multiplied with it; kMla with YaRN: mscale^2 included
  QkNorm qk_norm = QkNorm::kNone;
  bool qkv_bias = false;  ///< kGqa: on q, k and v; kMla: on q_a and kv_a
  bool o_bias = false;
  bool sinks = false;  ///< one extra logit a head in the softmax (gpt-oss)
  RopeSpec rope;

  // kMla only.
  int32_t q_lora_rank = 0;  ///< 0: queries come straight from the hidden state
  int32_t kv_lora_rank = 0;
  int32_t qk_nope_dim = 0;
  int32_t qk_rope_dim = 0;
  float latent_norm_eps = 1e-6f;  ///< of q_a_norm and kv_a_norm: not the model's rms_eps

  /// Columns of a row of the KV cache: keys (MLA: the latent row) and values (MLA: the first ones of the
  /// latent row).
  int32_t cache_k_dim() const { return kind == AttentionKind::kMla ? kv_lora_rank + qk_rope_dim : head_dim; }
  int32_t cache_v_dim() const { return kind == AttentionKind::kMla ? kv_lora_rank : v_head_dim; }
};

/// The routed and shared experts; equal in all MoE layers of a model.
struct MoeSpec {
  int32_t num_experts = 0;  ///< 0: a dense model
  int32_t top_k = 0;
  int32_t inter = 0;  ///< intermediate size of one routed expert
  kernels::RouterScore score = kernels::RouterScore::kSoftmax;
  bool selection_bias = false;  ///< DeepSeek-V3's correction bias: chooses, does not weigh
  bool router_bias = false;     ///< added to the logits (gpt-oss)
  int32_t num_groups = 1, top_groups = 1;
  kernels::GroupScore group_score = kernels::GroupScore::kMax;
  bool normalize = false;
  float normalize_eps = 0.0f;
  float scale = 1.0f;

  int32_t shared_inter = 0;  ///< intermediate size of all shared experts together; 0: none
  bool shared_gate = false;  ///< the shared experts' output is multiplied with sigmoid(gate . x) (Qwen2-MoE)

  kernels::Activation activation = kernels::Activation::kSilu;
  float swiglu_alpha = 1.702f, swiglu_limit = 7.0f;
  bool expert_bias = false;  ///< on gate_up and down of every routed expert (gpt-oss)
};

}  // namespace cadre::nn
