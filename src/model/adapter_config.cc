#include "model/adapter_config.h"

#include <algorithm>
#include <cmath>

#include "checkpoint/file.h"
#include "checkpoint/hf_config.h"

namespace cadre::model {
namespace {

constexpr const char* kConfigFile = "adapter_config.json";
constexpr int64_t kMaxConfigBytes = 16 << 20;
constexpr double kMaxRank = 1 << 20, kMaxAlpha = 1e9;

// A value that leaves things as they are.
bool IsNothing(const Json* value) {
  if (value == nullptr || value->is_null()) return true;
  if (value->is_bool()) return !value->AsBool();
  if (value->is_array()) return value->AsArray().empty();
  if (value->is_object()) return value->AsObject().empty();
  return value->is_string() && value->AsString().empty();
}

struct Refused {
  const char* key;
  const char* why;
};
constexpr Refused kRefused[] = {
    {"use_dora", "DoRA is not built"},
    {"use_qalora", "QA-LoRA is not built"},
    {"lora_bias", "biases in an adapter are not built"},
    {"modules_to_save", "whole modules in an adapter are not built; merge them into the checkpoint"},
    {"target_parameters", "LoRA on parameters, such as those of experts, is not built"},
    {"trainable_token_indices", "trained embeddings in an adapter are not built"},
    {"alora_invocation_tokens", "activated LoRA is not built"},
    {"layer_replication", "replicated layers are not built"},
    {"fan_in_fan_out", "transposed weights are not built"},
};

}  // namespace

Result<AdapterConfig> AdapterConfig::Read(const std::string& folder) {
  const std::string path = folder + "/" + kConfigFile;
  if (!checkpoint::IsFolder(folder) || !checkpoint::IsFile(path)) {
    return Fail(Code::kNotFound,
                "No adapter found for {}: wanted a folder with {} and adapter_model.safetensors", folder,
                kConfigFile);
  }
  CADRE_ASSIGN(const std::string text, checkpoint::ReadWholeFile(path, kMaxConfigBytes));
  auto json = Json::Parse(text);
  if (!json) return Fail(Code::kDataLoss, "{}: {}", path, json.error().message);
  if (!json->is_object()) return Fail(Code::kDataLoss, "{} is not a JSON object", path);
  return FromJson(*json, path);
}

Result<AdapterConfig> AdapterConfig::FromJson(const Json& json, const std::string& where) {
  checkpoint::ConfigReader reader(json, where);
  AdapterConfig config;
  const std::string type = reader.StringOr("peft_type", "LORA");
  config.rank_ = static_cast<double>(reader.IntOr("r", 8, 1, static_cast<int64_t>(kMaxRank)));
  config.alpha_ = reader.NumberOr("lora_alpha", 8, -kMaxAlpha, kMaxAlpha);
  config.rank_stabilized_ = reader.BoolOr("use_rslora", false);
  const std::string bias = reader.StringOr("bias", "none");
  CADRE_TRY(reader.status());
  if (type != "LORA") {
    return Fail(Code::kUnsupported, "{}: peft_type is '{}'; only LORA is built", where, Excerpt(type));
  }
  if (bias != "none") {
    return Fail(Code::kUnsupported, "{}: bias is '{}'; biases in an adapter are not built, only \"none\"",
                where, Excerpt(bias));
  }
  for (const Refused& refused : kRefused) {
    if (!IsNothing(json.Find(refused.key)))
      return Fail(Code::kUnsupported, "{}: {} is set: {}", where, refused.key, refused.why);
  }
  CADRE_ASSIGN(config.ranks_, Patterns(json, "rank_pattern", where, 1, kMaxRank));
  CADRE_ASSIGN(config.alphas_, Patterns(json, "alpha_pattern", where, -kMaxAlpha, kMaxAlpha));
  return config;
}

// PEFT takes the keys as regular expressions that match the end of a module's path from a point on. What PEFT
// itself writes are paths or ends of paths; more than that is refused instead of understood half.
Result<std::vector<AdapterConfig::Pattern>> AdapterConfig::Patterns(const Json& json, const char* key,
                                                                    const std::string& where, double min,
                                                                    double max) {
  std::vector<Pattern> patterns;
  const Json* const given = json.Find(key);
  if (given == nullptr || given->is_null()) return patterns;
  if (!given->is_object())
    return Fail(Code::kInvalidArgument, "{}: {} must be an object, found {}", where, key, given->TypeName());
  for (const auto& [name, value] : given->AsObject()) {
    std::string plain;
    for (size_t i = name.starts_with('^') ? 1 : 0; i < name.size(); ++i) {
      if (name[i] == '\\' && i + 1 < name.size() && name[i + 1] == '.') continue;  // an escaped point
      plain += name[i];
    }
    const bool is_path = !plain.empty() && std::ranges::all_of(plain, [](unsigned char c) {
      return std::isalnum(c) != 0 || c == '_' || c == '.' || c == '-';
    });
    if (!is_path) {
      return Fail(Code::kUnsupported,
                  "{}: {} has the regular expression '{}'; names of modules are supported", where, key,
                  Excerpt(name));
    }
    if (!value.is_number() || !(value.AsDouble() >= min && value.AsDouble() <= max)) {
      return Fail(Code::kInvalidArgument, "{}: {} of '{}' must be a number from {} to {}", where, key,
                  Excerpt(name), min, max);
    }
    patterns.push_back({std::move(plain), value.AsDouble()});
  }
  return patterns;
}

double AdapterConfig::Lookup(const std::vector<Pattern>& patterns, const std::string& module,
                             double otherwise) {
  for (const Pattern& pattern : patterns) {
    if (!module.ends_with(pattern.name)) continue;
    const size_t before = module.size() - pattern.name.size();
    if (before == 0 || module[before - 1] == '.') return pattern.value;
  }
  return otherwise;
}

int64_t AdapterConfig::RankOf(const std::string& module) const {
  return static_cast<int64_t>(Lookup(ranks_, module, rank_));
}

double AdapterConfig::ScaleOf(const std::string& module) const {
  const auto rank = static_cast<double>(RankOf(module));
  return Lookup(alphas_, module, alpha_) / (rank_stabilized_ ? std::sqrt(rank) : rank);
}

}  // namespace cadre::model
