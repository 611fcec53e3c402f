// DeepSeek-V3: as V2, but sigmoid scores, chosen with a correction bias from the best groups (sum of the two
// best).
#include "model/families/parts.h"

namespace cadre::model {

void FillDeepseekV3(ConfigReader& config, ModelSpec& spec) {
  ReadBase(config, spec);
  ReadMla(config, spec);
  spec.attention.rope.interleaved = config.BoolOr("rope_interleave", true);

  RequireOnly(config, "moe_layer_freq", 1);
  RequireOnly(config, "scoring_func", "sigmoid");
  RequireOnly(config, "topk_method", "noaux_tc");
  MarkDeepseekMoeLayers(config, spec);
  ReadExperts(config, spec, {"n_routed_experts", "num_local_experts"}, "moe_intermediate_size");
  spec.moe.score = kernels::RouterScore::kSigmoid;
  spec.moe.selection_bias = true;
  spec.moe.group_score = kernels::GroupScore::kSumOfTop2;
  ReadGroups(config, spec);
  spec.moe.normalize = config.BoolOr("norm_topk_prob", true);
  spec.moe.normalize_eps = 1e-20f;
  spec.moe.scale = static_cast<float>(config.NumberOr("routed_scaling_factor", 2.5, -1e6, 1e6));
  spec.moe.shared_inter = spec.moe.inter * static_cast<int32_t>(config.IntOr("n_shared_experts", 0, 0, 1024));
  ReadDenseInter(config, spec);
}

}  // namespace cadre::model
