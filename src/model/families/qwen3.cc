// Qwen3, dense: per-head query and key norms.
#include "model/families/parts.h"

namespace cadre::model {

void FillQwen3(ConfigReader& config, ModelSpec& spec) {
  ReadBase(config, spec);
  ReadGqa(config, spec);
  spec.attention.qk_norm = QkNorm::kPerHead;
  spec.attention.qkv_bias = spec.attention.o_bias = config.BoolOr("attention_bias", false);
  ReadQwenWindows(config, spec, [](int64_t layer, int64_t max_layers) { return layer >= max_layers; });
  ReadDenseInter(config, spec);
}

}  // namespace cadre::model
