// Whatever text claims to be a config.json: an error, or a spec whose weights can be planned without
// overflow.
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "model/registry.h"
#include "model/weight_plan.h"
#include "nn/rope.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto config = cadre::Json::Parse({reinterpret_cast<const char*>(data), size});
  if (!config) return 0;
  const auto spec = cadre::model::ReadModelSpec(*config, *config);
  if (!spec) {
    CADRE_CHECK(!spec.error().message.empty());
    return 0;
  }
  CADRE_CHECK(spec->num_parameters() > 0 && spec->num_active_parameters() > 0);
  const auto steps = cadre::nn::RopeInverseFrequencies(spec->attention.rope);
  CADRE_CHECK(2 * steps.size() == static_cast<size_t>(spec->attention.rope.rotary_dim));
  for (const int32_t tp : {1, 2}) {
    const auto plan = cadre::model::PlanWeights(
        *spec,
        {.type = cadre::DType::kF32, .tp_rank = tp - 1, .tp_size = tp, .ep_rank = tp - 1, .ep_size = tp});
    if (plan) CADRE_CHECK(plan->dense_bytes > 0 && plan->expert_bytes >= 0 && plan->total_bytes() > 0);
  }
  return 0;
}
