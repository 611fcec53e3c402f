#include "model/registry.h"

#include <algorithm>

#include "model/families/parts.h"

namespace cadre::model {
namespace {

constexpr Family kFamilies[] = {
    {"qwen3_moe", "Qwen3MoeForCausalLM", FillQwen3Moe},
    {"qwen2_moe", "Qwen2MoeForCausalLM", FillQwen2Moe},
    {"mixtral", "MixtralForCausalLM", FillMixtral},
    {"olmoe", "OlmoeForCausalLM", FillOlmoe},
    {"deepseek_v2", "DeepseekV2ForCausalLM", FillDeepseekV2},
    {"deepseek_v3", "DeepseekV3ForCausalLM", FillDeepseekV3},
    {"qwen3", "Qwen3ForCausalLM", FillQwen3},
    {"llama", "LlamaForCausalLM", FillLlama},
    {"mistral", "MistralForCausalLM", FillMistral},
};

// What config.json calls itself, for messages; "" if it says nothing usable.
std::string ArchitectureOf(const Json& config) {
  const Json* list = config.Find("architectures");
  if (list && list->is_array() && !list->AsArray().empty() && list->AsArray()[0].is_string()) {
    return list->AsArray()[0].AsString();
  }
  return "";
}

std::string TypeOf(const Json& config) {
  const Json* type = config.Find("model_type");
  return type && type->is_string() ? type->AsString() : "";
}

std::string KnownArchitectures() {
  std::string list;
  for (const Family& family : kFamilies)
    list += (list.empty() ? "" : ", ") + std::string(family.architecture);
  return list;
}

// generation_config.json often knows more tokens that end a turn; both files count.
void AddGenerationTokens(ConfigReader& generation, ModelSpec& spec) {
  for (const int64_t token : generation.Ints("eos_token_id", -1, kMaxVocab)) {
    const auto id = static_cast<int32_t>(token);
    if (id >= 0 && std::ranges::find(spec.eos_token_ids, id) == spec.eos_token_ids.end()) {
      spec.eos_token_ids.push_back(id);
    }
  }
  if (spec.bos_token_id < 0) {
    spec.bos_token_id = static_cast<int32_t>(generation.IntOr("bos_token_id", -1, -1, kMaxVocab));
  }
}

}  // namespace

std::span<const Family> Families() {
  return kFamilies;
}

const Family* FindFamily(const Json& config) {
  const std::string architecture = ArchitectureOf(config), type = TypeOf(config);
  for (const Family& family : kFamilies) {
    if (architecture.empty() ? type == family.model_type : architecture == family.architecture)
      return &family;
  }
  return nullptr;
}

Result<ModelSpec> ReadModelSpec(const Json& config, const Json& generation_config) {
  const Family* family = FindFamily(config);
  if (!family) {
    return FailParam(Code::kUnsupported, "architectures",
                     "config.json: architecture '{}' (model_type '{}') is not known; known are {}",
                     ArchitectureOf(config), TypeOf(config), KnownArchitectures());
  }
  ModelSpec spec;
  spec.architecture = family->architecture;
  spec.family = family->model_type;
  ConfigReader reader(config, "config.json");
  family->fill(reader, spec);
  CADRE_TRY(reader.status());
  if (generation_config.is_object()) {
    ConfigReader generation(generation_config, "generation_config.json");
    AddGenerationTokens(generation, spec);
    CADRE_TRY(generation.status());
  }
  if (spec.num_moe_layers() == 0) spec.moe = {};
  return spec;
}

}  // namespace cadre::model
