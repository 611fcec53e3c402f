#pragma once
// How a family's checkpoint calls its tensors. "{layer}" is not written out: a layer's tensors are
// layer_prefix, the number, a point and the name below.
#include <string>
#include <vector>

namespace cadre::model {

struct TensorNames {
  std::string embedding = "model.embed_tokens.weight";
  std::string final_norm = "model.norm.weight";
  std::string lm_head = "lm_head.weight";
  std::string layer_prefix = "model.layers.";

  std::string attn_norm = "input_layernorm.weight";
  std::string ffn_norm = "post_attention_layernorm.weight";
  std::string attention = "self_attn.";  ///< then q_proj.weight, k_proj.bias, kv_b_proj.weight, ...
  std::string dense = "mlp.";            ///< then gate_proj.weight, up_proj.weight, down_proj.weight

  /// Where the experts' block may be found; the first that the checkpoint has is taken (Mixtral is published
  /// under block_sparse_moe, and written under mlp by newer tools).
  std::vector<std::string> moe = {"mlp."};
  std::string router = "gate.weight";                           ///< behind `moe`
  std::string router_bias = "gate.bias";                        ///< behind `moe`
  std::string selection_bias = "gate.e_score_correction_bias";  ///< behind `moe`
  std::string shared = "shared_experts.";                       ///< behind `moe`
  std::string shared_gate = "shared_expert_gate.weight";        ///< behind `moe`
  std::string expert_gate = "gate_proj", expert_up = "up_proj",
              expert_down = "down_proj";  ///< experts.{e}.X.weight
};

}  // namespace cadre::model
