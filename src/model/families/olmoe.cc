// OLMoE: norms over the whole query and key rows, weights not normalised unless asked for.
#include "model/families/parts.h"

namespace cadre::model {

void FillOlmoe(ConfigReader& config, ModelSpec& spec) {
  ReadBase(config, spec);
  ReadGqa(config, spec);
  spec.attention.qk_norm = QkNorm::kFullRow;
  spec.attention.qkv_bias = spec.attention.o_bias = config.BoolOr("attention_bias", false);
  if (config.Has("clip_qkv")) config.Refuse("clip_qkv", "null");

  for (LayerSpec& layer : spec.layers) layer.moe = true;
  ReadExperts(config, spec, {"num_experts", "num_local_experts"}, "intermediate_size");
  spec.moe.normalize = config.BoolOr("norm_topk_prob", false);
}

}  // namespace cadre::model
