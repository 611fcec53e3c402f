// Qwen3-MoE: per-head query and key norms, softmax over all experts, no shared expert.
#include "model/families/parts.h"

namespace cadre::model {

void FillQwen3Moe(ConfigReader& config, ModelSpec& spec) {
  ReadBase(config, spec);
  ReadGqa(config, spec);
  spec.attention.qk_norm = QkNorm::kPerHead;
  spec.attention.qkv_bias = spec.attention.o_bias = config.BoolOr("attention_bias", false);
  if (config.BoolOr("use_sliding_window", false)) ReadWindowOfAllLayers(config, spec, 4096);

  MarkQwenMoeLayers(config, spec);
  ReadExperts(config, spec, {"num_local_experts", "num_experts"}, "moe_intermediate_size");
  spec.moe.normalize = config.BoolOr("norm_topk_prob", false);
  ReadDenseInter(config, spec);
}

}  // namespace cadre::model
