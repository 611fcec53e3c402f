#include "config/lora.h"

#include <algorithm>

namespace cadre::config {
namespace {

constexpr auto kBad = Code::kInvalidArgument;
constexpr const char* kModules = "--lora-modules";

Result<LoraModule> ModuleOf(const std::string& word) {
  if (!word.starts_with('{')) {
    const size_t equals = word.find('=');
    if (equals == word.npos || equals == 0 || equals + 1 == word.size()) {
      return FailParam(kBad, kModules,
                       "--lora-modules takes NAME=PATH or a JSON object with name and path, found '{}'",
                       Excerpt(word));
    }
    return LoraModule{.name = word.substr(0, equals), .path = word.substr(equals + 1)};
  }
  const auto json = Json::Parse(word);
  if (!json) return FailParam(kBad, kModules, "--lora-modules '{}': {}", Excerpt(word), json.error().message);
  LoraModule module;
  for (const auto& [key, value] : json->AsObject()) {
    if (key != "name" && key != "path" && key != "base_model_name") {
      return FailParam(kBad, kModules,
                       "--lora-modules knows no '{}'; it takes name, path and base_model_name", Excerpt(key));
    }
    if (value.is_null()) continue;
    if (!value.is_string()) {
      return FailParam(kBad, kModules, "--lora-modules: {} must be text, found {}", key, value.TypeName());
    }
    (key == "name" ? module.name : key == "path" ? module.path : module.base) = value.AsString();
  }
  if (module.name.empty() || module.path.empty())
    return FailParam(kBad, kModules, "--lora-modules '{}' lacks name or path", Excerpt(word));
  return module;
}

}  // namespace

Status SettleLora(const ModelOptions& model, LoraOptions& lora) {
  lora.modules.clear();
  for (const std::string& word : lora.module_words) {
    CADRE_ASSIGN(LoraModule module, ModuleOf(word));
    const auto& served = model.served_model_names;
    const bool taken =
        served.empty() ? module.name == model.model : std::ranges::count(served, module.name) > 0;
    if (taken || std::ranges::count(lora.modules, module.name, &LoraModule::name) > 0) {
      return FailParam(kBad, kModules, "--lora-modules: the name '{}' is {}", Excerpt(module.name),
                       taken ? "the model's own" : "given twice");
    }
    const bool of_ours =
        served.empty() ? module.base == model.model : std::ranges::count(served, module.base) > 0;
    if (!module.base.empty() && !of_ours) {
      return FailParam(kBad, kModules,
                       "--lora-modules: base_model_name '{}' is not a name of this server's model",
                       Excerpt(module.base));
    }
    lora.modules.push_back(std::move(module));
  }
  if (!lora.enabled) {
    if (lora.modules.empty()) return {};
    return FailParam(kBad, kModules, "--lora-modules wants --enable-lora");
  }
  if (lora.max_cpu_loras && *lora.max_cpu_loras < lora.max_loras) {
    return FailParam(kBad, "--max-cpu-loras", "max_cpu_loras ({}) must be >= max_loras ({})",
                     *lora.max_cpu_loras, lora.max_loras);
  }
  if (std::ssize(lora.modules) > lora.max_adapters()) {
    return FailParam(kBad, kModules,
                     "--lora-modules names {} adapters and {} may be loaded; raise --max-cpu-loras",
                     lora.modules.size(), lora.max_adapters());
  }
  if (lora.dtype == "bfloat16" && model.dtype == "float32") {
    return FailParam(kBad, "--lora-dtype",
                     "--lora-dtype bfloat16 with --dtype float32 is not built; leave it auto");
  }
  return {};
}

}  // namespace cadre::config
