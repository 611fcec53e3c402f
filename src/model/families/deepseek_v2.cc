// DeepSeek-V2: latent attention, softmax routing (plain or limited to groups), shared experts, dense first
// layers.
#include "model/families/parts.h"

namespace cadre::model {

void FillDeepseekV2(ConfigReader& config, ModelSpec& spec) {
  ReadBase(config, spec);
  ReadMla(config, spec);
  spec.attention.rope.interleaved = true;

  RequireOnly(config, "mlp_bias", false);
  RequireOnly(config, "moe_layer_freq", 1);
  RequireOnly(config, "scoring_func", "softmax");
  // The published code scales or normalises, vLLM does both, the reference library never normalises; no
  // published checkpoint asks for it.
  RequireOnly(config, "norm_topk_prob", false);
  MarkDeepseekMoeLayers(config, spec);
  ReadExperts(config, spec, {"n_routed_experts", "num_experts"}, "moe_intermediate_size");
  const std::string method = config.StringOr("topk_method", "greedy");
  if (method == "group_limited_greedy") {
    spec.moe.group_score = kernels::GroupScore::kMax;
    ReadGroups(config, spec);
  } else if (method != "greedy") {
    config.Refuse("topk_method", "\"greedy\", \"group_limited_greedy\"");
  }
  spec.moe.scale = static_cast<float>(config.NumberOr("routed_scaling_factor", 1.0, -1e6, 1e6));
  spec.moe.shared_inter = spec.moe.inter * static_cast<int32_t>(config.IntOr("n_shared_experts", 0, 0, 1024));
  ReadDenseInter(config, spec);
}

}  // namespace cadre::model
