#pragma once
// Tiny random checkpoints of any known family, so that tests and simulations need no data from outside.
#include <cstdint>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "tensor/dtype.h"

namespace cadre::model {

struct TinyOptions {
  std::string family = "qwen3_moe";  ///< a model_type of the registry
  uint64_t seed = 1;
  DType type = DType::kBf16;   ///< of the tensors: kBf16, kF16 or kF32
  bool fused_experts = false;  ///< experts.gate_up_proj and experts.down_proj, all experts in one tensor
  bool new_style = false;  ///< rope_parameters and dtype instead of rope_theta, rope_scaling and torch_dtype
  int num_files = 1;       ///< more than one: shards with an index

  int vocab_size = 96, hidden = 48, num_layers = 3;
  int num_heads = 4, num_kv_heads = 2, head_dim = 16;
  int dense_inter = 56, moe_inter = 24, num_experts = 6, top_k = 2;
  int q_lora_rank = 20, kv_lora_rank = 16, qk_nope_dim = 12, qk_rope_dim = 8, v_head_dim = 10;  ///< DeepSeek
  bool tie_embeddings = false;
  Json extra = {};  ///< an object: members set in config.json last
};

/// config.json of such a model.
Json MakeTinyConfig(const TinyOptions& options);

/// Writes config.json and the weights into `folder`, which must exist. Equal options give equal bytes.
/// Weights are drawn so that logits spread by about one; norms lie around one. Errors: those of ReadModelSpec
/// (an impossible combination), kUnavailable (cannot write).
Status WriteTinyCheckpoint(const std::string& folder, const TinyOptions& options);

}  // namespace cadre::model
