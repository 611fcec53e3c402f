// Mixtral: every layer MoE, the chosen weights always normalised, an optional sliding window in all layers.
#include "model/families/parts.h"

namespace cadre::model {

void FillMixtral(ConfigReader& config, ModelSpec& spec) {
  ReadBase(config, spec);
  ReadGqa(config, spec, 1e6);
  ReadWindowOfAllLayers(config, spec, 0);

  for (LayerSpec& layer : spec.layers) layer.moe = true;
  ReadExperts(config, spec, {"num_local_experts", "num_experts"}, "intermediate_size");
  spec.moe.normalize = true;
  // Published files say block_sparse_moe and w1, w3, w2; files in the library's own layout say mlp and fuse
  // the experts.
  spec.names.moe = {"block_sparse_moe.", "mlp."};
  spec.names.expert_gate = "w1";
  spec.names.expert_up = "w3";
  spec.names.expert_down = "w2";
}

}  // namespace cadre::model
