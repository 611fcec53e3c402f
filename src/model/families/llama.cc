// Llama 2, 3 and what is built like them; Mistral is Llama with a sliding window.
#include "model/families/parts.h"

namespace cadre::model {

void FillLlama(ConfigReader& config, ModelSpec& spec) {
  ReadBase(config, spec);
  ReadGqa(config, spec);
  spec.attention.qkv_bias = spec.attention.o_bias = config.BoolOr("attention_bias", false);
  RequireOnly(config, "mlp_bias", false);
  ReadDenseInter(config, spec);
}

void FillMistral(ConfigReader& config, ModelSpec& spec) {
  ReadBase(config, spec);
  ReadGqa(config, spec);
  ReadWindowOfAllLayers(config, spec, 4096);
  ReadDenseInter(config, spec);
}

}  // namespace cadre::model
