// LoRA adapters.
#include "config/settings.h"

namespace cadre::config {
namespace {

constexpr std::string_view kLowRankKernels =
    "It tunes GPU kernels; here the rows of each adapter are one small product after another.";

constexpr Setting kLora[] = {
    Works("enable-lora", Type::kBool, "", Into<&LoraOptions::enabled>,
          "Serve LoRA adapters on attention and dense layers beside the model; see docs/lora.md."),
    Works("max-loras", Type::kInt, "1", Into<&LoraOptions::max_loras>,
          "Adapters that memory is planned for. Any number of those loaded may meet in one step.")
        .Range(1, 4096),
    Works("max-lora-rank", Type::kInt, "16", Into<&LoraOptions::max_rank>, "Largest rank of an adapter.")
        .Range(1, 512),
    Works("lora-dtype", Type::kString, "auto", Into<&LoraOptions::dtype>,
          "Type of lora_A: auto, which is the model's. lora_B is float32 always.")
        .Choices("auto,bfloat16,float16")
        .Only("auto,bfloat16", "float16 is not computed in; leave it auto."),
    NoEffect("enable-tower-connector-lora", Type::kBool, "false", kNoVisionTuning),
    Works("max-cpu-loras", Type::kInt, "", Into<&LoraOptions::max_cpu_loras>,
          "Adapters that may be loaded at once; if unset, the larger of --max-loras and 8.")
        .Range(1, 4096),
    NoEffect(
        "fully-sharded-loras", Type::kBool, "false",
        "lora_A or lora_B of a projection is split over tensor-parallel ranks, whichever its weight's split "
        "asks for."),
    NotBuilt("lora-target-modules", Type::kStrings, "",
             "Leaving out some modules of an adapter is not built: an adapter is used as a whole."),
    NotBuilt("default-mm-loras", Type::kJson, "", kNoVision),
    NoEffect("specialize-active-lora", Type::kBool, "false", kLowRankKernels),
    NotBuilt("enable-mixed-moe-lora-format", Type::kBool, "false", kNoExpertLora),
    NotBuilt("enable-moe-shared-loras", Type::kBool, "false", kNoExpertLora),
    NotBuilt("max-lora-cls-labels", Type::kInt, "", "Classification is not built."),
};

}  // namespace

Group LoraGroup() {
  return {"LoRAConfig", "LoRA adapters", kLora};
}

}  // namespace cadre::config
