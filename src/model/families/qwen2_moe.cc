// Qwen2-MoE: biases on q, k and v, and one shared expert behind a sigmoid gate.
#include "model/families/parts.h"

namespace cadre::model {

void FillQwen2Moe(ConfigReader& config, ModelSpec& spec) {
  ReadBase(config, spec);
  ReadGqa(config, spec);
  spec.attention.qkv_bias = config.BoolOr("qkv_bias", true);
  ReadQwenWindows(config, spec,
                  [](int64_t layer, int64_t max_layers) { return layer % 2 == 0 && layer < max_layers; });

  MarkQwenMoeLayers(config, spec);
  ReadExperts(config, spec, {"num_experts", "num_local_experts"}, "moe_intermediate_size");
  spec.moe.normalize = config.BoolOr("norm_topk_prob", false);
  spec.moe.shared_inter = static_cast<int32_t>(config.Int("shared_expert_intermediate_size", 1, kMaxInter));
  spec.moe.shared_gate = true;
  spec.names.shared = "shared_expert.";
  ReadDenseInter(config, spec);
}

}  // namespace cadre::model
