#pragma once
// The weights of one rank as the layers use them. Nothing here owns bytes.
//
// "Local" means: of this rank's shard (model/shard.h has the numbers).
#include <cstdint>
#include <vector>

#include "kernels/grouped_gemm.h"
#include "kernels/pack.h"
#include "tensor/dtype.h"

namespace cadre::nn {

using kernels::ExpertWeights;
using kernels::PackedMatrix;

/// Norms and biases are f32 whatever the mode. A matrix with data == nullptr is absent.
struct AttentionWeights {
  // kGqa. Rows of qkv: local query heads, local key heads, local value heads, each head's rows together.
  PackedMatrix qkv;                 ///< n = (heads + kv_heads) * head_dim + kv_heads * v_head_dim, k = hidden
  const float* qkv_bias = nullptr;  ///< [qkv.n] or null
  const float* q_norm = nullptr;    ///< kPerHead: [head_dim]; kFullRow: local [heads * head_dim]
  const float* k_norm = nullptr;    ///< kPerHead: [head_dim]; kFullRow: local [kv_heads * head_dim]
  const float* sinks = nullptr;     ///< local [heads] or null

  // kMla. q_a, q_a_norm only with q_lora_rank > 0; then q_b reads the normed q_a row, else the hidden state.
  // Rows of q_b: local heads, each [qk_nope | qk_rope]. Rows of kv_a: [kv_lora | qk_rope], on every rank.
  PackedMatrix q_a;                  ///< n = q_lora_rank, k = hidden
  const float* q_a_bias = nullptr;   ///< [q_lora_rank] or null
  const float* q_a_norm = nullptr;   ///< [q_lora_rank]
  PackedMatrix q_b;                  ///< n = heads * (qk_nope + qk_rope), k = q_lora_rank or hidden
  PackedMatrix kv_a;                 ///< n = kv_lora_rank + qk_rope_dim, k = hidden
  const float* kv_a_bias = nullptr;  ///< [kv_a.n] or null
  const float* kv_a_norm = nullptr;  ///< [kv_lora_rank]
  std::vector<PackedMatrix>
      w_uk;  ///< a local head: n = kv_lora_rank, k = qk_nope: q_nope -> the latent space
  std::vector<PackedMatrix> w_uv;  ///< a local head: n = v_head_dim, k = kv_lora_rank: latent -> value

  PackedMatrix o;  ///< n = hidden, k = heads * v_head_dim (local columns: the results of all tp add up)
  const float* o_bias = nullptr;  ///< [hidden] on tp_rank 0 only, so that the sum over tp has it once
};

/// silu(gate) * up, then down. Local intermediate columns: the results of all tp add up.
struct FeedForwardWeights {
  PackedMatrix gate_up;  ///< n = 2 * inter: the gate rows, then the up rows; k = hidden
  PackedMatrix down;     ///< n = hidden, k = inter
};

struct MoeWeights {
  PackedMatrix router;                    ///< kF32 in every mode; n = num_experts, k = hidden; on every rank
  const float* router_bias = nullptr;     ///< [num_experts] or null
  const float* selection_bias = nullptr;  ///< [num_experts] or null
  /// The experts this rank holds, by local slot; which logical expert a slot holds stands beside it. With EP
  /// an expert is whole; without, every rank holds every expert and a part of its intermediate columns.
  std::vector<ExpertWeights> experts;
  std::vector<int32_t> logical;  ///< [experts.size()]
  FeedForwardWeights shared;     ///< absent where there is none
  PackedMatrix shared_gate;      ///< kF32, n = 1, k = hidden; on every rank; absent where there is none
};

}  // namespace cadre::nn
