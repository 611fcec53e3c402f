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

// What the checkpoint's list leaves out, once for all who plan memory. Fused matrices are fp8 only where all
// their parts are, experts only where those of all layers are: their places are alike. The first expert
// speaks for its layer; where another differs, its tensor is refused when it is met.
void MarkPlainLinears(ModelSpec& spec) {
  if (spec.quant.skip.empty()) return;
  const TensorNames& names = spec.names;
  const auto any_plain = [&](const std::string& at, std::initializer_list<std::string> layers) {
    return std::any_of(layers.begin(), layers.end(),
                       [&](const std::string& layer) { return !spec.quant.Quantizes(at + layer); });
  };
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    LayerSpec& layer = spec.layers[i];
    const auto mark = [&](LinearKind kind, const std::string& at, std::initializer_list<std::string> layers) {
      if (any_plain(at, layers)) layer.plain_linears |= static_cast<uint16_t>(1u << static_cast<int>(kind));
    };
    const std::string prefix = names.layer_prefix + std::to_string(i) + ".",
                      attention = prefix + names.attention;
    mark(LinearKind::kQkv, attention, {"q_proj", "k_proj", "v_proj"});
    mark(LinearKind::kOut, attention, {"o_proj"});
    mark(LinearKind::kQueryA, attention, {"q_a_proj"});
    mark(LinearKind::kQueryB, attention, {spec.attention.q_lora_rank > 0 ? "q_b_proj" : "q_proj"});
    mark(LinearKind::kKvA, attention, {"kv_a_proj_with_mqa"});
    mark(LinearKind::kGateUp, prefix + names.dense, {"gate_proj", "up_proj"});
    mark(LinearKind::kDown, prefix + names.dense, {"down_proj"});
    if (!layer.moe) continue;
    for (const std::string& moe : names.moe) {
      mark(LinearKind::kSharedGateUp, prefix + moe + names.shared, {"gate_proj", "up_proj"});
      mark(LinearKind::kSharedDown, prefix + moe + names.shared, {"down_proj"});
      spec.plain_experts |=
          any_plain(prefix + moe + "experts.0.", {names.expert_gate, names.expert_up, names.expert_down});
    }
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
  MarkPlainLinears(spec);
  return spec;
}

}  // namespace cadre::model
