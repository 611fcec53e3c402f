// [inference] -> flags of `cadre serve`.
#include <algorithm>

#include "config/rl_keys.h"
#include "config/rl_plan.h"
#include "config/settings.h"
#include "config/value.h"

namespace cadre::config {
namespace {

struct Renamed {
  std::string_view key, flag;
};

// Keys of the older shape that are named otherwise than their flags.
constexpr Renamed kRenamed[] = {
    {"server.host", "host"},
    {"server.port", "port"},
    {"model.name", "model"},
    {"model.dtype", "dtype"},
    {"model.max_model_len", "max-model-len"},
    {"model.enforce_eager", "enforce-eager"},
    {"model.trust_remote_code", "trust-remote-code"},
    {"model.chat_template", "chat-template"},
    {"model.enable_auto_tool_choice", "enable-auto-tool-choice"},
    {"model.reasoning_parser", "reasoning-parser"},
    {"parallel.tp", "tensor-parallel-size"},
    {"parallel.dp", "data-parallel-size"},
    {"log.level", "log-level"},
};

// Keys of the run that all parts share; a part's own wins.
constexpr Renamed kShared[] = {
    {"model.name", "model"},         {"max_model_len", "max-model-len"},
    {"tokenizer.name", "tokenizer"}, {"tokenizer.chat_template", "chat-template"},
    {"log.level", "log-level"},
};

constexpr int64_t kLoraRanks[] = {8, 16, 32, 64, 128, 256, 320, 512};

void Take(const RlTree& tree, const std::string& path, std::string_view flag, RlFlags& flags) {
  if (const Json* value = tree.Find(path)) flags[std::string(flag)] = {*value, path};
}

Status TakeLora(const RlTree& tree, const std::string& table, RlFlags& flags) {
  if (!tree.Bool(table + ".enable_lora", false)) {
    for (const char* flag : {"enable-lora", "max-loras", "max-cpu-loras", "max-lora-rank"}) flags.erase(flag);
    return {};
  }
  Take(tree, table + ".enable_lora", "enable-lora", flags);
  Take(tree, table + ".max_loras", "max-loras", flags);
  Take(tree, table + ".max_cpu_loras", "max-cpu-loras", flags);
  const std::string path = table + ".max_lora_rank";
  if (tree.Find(path) == nullptr) return {};
  const int64_t rank = tree.Int(path, 0);
  for (const int64_t built : kLoraRanks) {
    if (rank > built) continue;
    flags["max-lora-rank"] = {Json(built), path};
    return {};
  }
  return FailParam(Code::kInvalidArgument, path, "{} = {} is above 512, the largest", KeyAt(tree, path),
                   rank);
}

// A parser is of use with enable_auto_tool_choice only, and "auto" leaves the choice to the model.
void TakeParsers(const RlTree& tree, const std::string& table, RlFlags& flags, std::vector<Notice>& notices) {
  if (FlagBool(flags, "enable-auto-tool-choice")) {
    if (!flags.contains("tool-call-parser"))
      Take(tree, table + ".model.tool_call_parser", "tool-call-parser", flags);
  } else {
    flags.erase("tool-call-parser");
  }
  for (const char* flag : {"tool-call-parser", "reasoning-parser"}) {
    const auto found = flags.find(flag);
    if (found == flags.end() || found->second.value != Json("auto")) continue;
    notices.push_back({false, Format("{} = \"auto\": none is used", KeyAt(tree, found->second.path))});
    flags.erase(found);
  }
}

// Trainers compare with the distribution that tokens were drawn from.
void TakeLogprobs(RlFlags& flags, std::vector<Notice>& notices) {
  const Setting* row = FindSetting(Command::kServe, "logprobs-mode");
  if (flags.contains("logprobs-mode") || row == nullptr) return;
  const auto built = SplitComma(row->only);
  if (row->only.empty() || std::ranges::find(built, "processed_logprobs") != built.end()) {
    flags["logprobs-mode"] = {Json("processed_logprobs"), ""};
  } else {
    notices.push_back({false,
                       "logprobs are those of the model before temperature; processed_logprobs, which "
                       "prime-rl sets, is not built"});
  }
}

// A value as words behind its flag.
void Append(const Setting& row, const Json& value, std::vector<std::string>& words) {
  const std::string flag = Format("--{}", row.name);
  const bool is_switch = row.type == Type::kBool || row.type == Type::kTrue;
  if (is_switch) {
    if (value.is_bool() && value.AsBool()) words.push_back(flag);
    if (value.is_bool() && !value.AsBool() && row.type == Type::kBool)
      words.push_back(Format("--no-{}", row.name));
  } else if (row.type == Type::kStrings && value.is_array()) {
    if (value.AsArray().empty()) return;
    words.push_back(flag);
    for (const Json& item : value.AsArray()) words.push_back(ValueText(item));
  } else if (row.type == Type::kAppended && value.is_array()) {
    for (const Json& item : value.AsArray()) words.push_back(Format("{}={}", flag, ValueText(item)));
  } else if (row.type == Type::kHumanIntOrAuto && value == Json(-1)) {
    words.push_back(flag + "=auto");
  } else {
    const std::string text = ValueText(value);
    if (text.starts_with('-') || text.empty()) {
      words.push_back(Format("{}={}", flag, text));
    } else {
      words.insert(words.end(), {flag, text});
    }
  }
}

// What a person would write into a file of [inference] to have the same.
Json Resolved(const RlFlags& flags) {
  RlTree tree;
  for (const auto& [flag, given] : flags) {
    std::string path = flag;
    std::replace(path.begin(), path.end(), '-', '_');
    for (const Renamed& one : kRenamed) {
      if (one.flag == flag) path = one.key;
    }
    tree.Set(path, given.value, "");
  }
  return tree.values;
}

}  // namespace

std::string KeyAt(const RlTree& tree, std::string_view path) {
  const std::string source = tree.Source(path);
  return source.empty() || source.starts_with("--") ? Format("--{}", path) : Format("{}: {}", source, path);
}

std::string ReachedAt(const std::string& host) {
  if (host.empty() || host == "0.0.0.0") return "127.0.0.1";
  if (host == "::") return "[::1]";
  return host.find(':') != host.npos && host[0] != '[' ? Format("[{}]", host) : host;
}

int64_t FlagInt(const RlFlags& flags, std::string_view flag, int64_t fallback) {
  const auto found = flags.find(flag);
  return found != flags.end() && found->second.value.is_int() ? found->second.value.AsInt() : fallback;
}
bool FlagBool(const RlFlags& flags, std::string_view flag) {
  const auto found = flags.find(flag);
  return found != flags.end() && found->second.value.is_bool() && found->second.value.AsBool();
}
std::string FlagText(const RlFlags& flags, std::string_view flag, std::string_view fallback) {
  const auto found = flags.find(flag);
  return std::string(found != flags.end() && found->second.value.is_string() ? found->second.value.AsString()
                                                                             : fallback);
}

void LayFlags(const RlTree& tree, const std::string& table, RlFlags& flags) {
  const Json* members = tree.Find(table);
  if (members == nullptr || !members->is_object()) return;
  for (const auto& [key, value] : members->AsObject()) {
    const std::string path = Format("{}.{}", table, key);
    const Setting* row = FindServeKey(path);
    // [inference.model] is a table of ours, not --model.
    const bool takes_table = row && (row->type == Type::kJson || row->type == Type::kJsonOrString);
    if (row == nullptr || (value.is_object() && !takes_table)) continue;
    if (value.is_null()) {
      flags.erase(std::string(row->name));
    } else {
      flags[std::string(row->name)] = {value, path};
    }
  }
}

Result<RlFlags> CollectFlags(const RlTree& tree, const std::string& table, std::vector<Notice>& notices) {
  RlFlags flags;
  for (const Renamed& one : kShared) Take(tree, std::string(one.key), one.flag, flags);
  LayFlags(tree, table, flags);
  flags.erase("api-server-count");
  for (const Renamed& one : kRenamed) Take(tree, Format("{}.{}", table, one.key), one.flag, flags);
  const std::string servers = table + ".api_server_count";
  if (tree.Find(servers) != nullptr) {
    if (tree.Int(servers, 1) == 0) {
      flags["headless"] = {Json(true), servers};
    } else {
      flags["api-server-count"] = {Json(tree.Int(servers, 1)), servers};
    }
  }
  if (const Json* scaling = tree.Find(table + ".model.rope_scaling")) {
    Json& overrides = flags["hf-overrides"].value;
    if (!overrides.is_object()) overrides = Json(Json::Object{});
    overrides.Set("rope_scaling", *scaling);
    flags["hf-overrides"].path = table + ".model.rope_scaling";
  }
  CADRE_TRY(TakeLora(tree, table, flags));
  LayFlags(tree, table + ".vllm", flags);
  LayFlags(tree, table + ".vllm_extra", flags);
  TakeParsers(tree, table, flags, notices);
  TakeLogprobs(flags, notices);
  // "warn" is Python's short form.
  if (const auto level = flags.find("log-level"); level != flags.end() && level->second.value == Json("warn"))
    level->second.value = Json("warning");
  return flags;
}

void AddVariables(const Json& table, RlProcess& process) {
  if (!table.is_object()) return;
  for (const auto& [name, value] : table.AsObject()) {
    std::erase_if(process.env, [&](const auto& one) { return one.first == name; });
    process.env.emplace_back(name, ValueText(value));
  }
}

Result<RlProcess> ServeProcess(const RlTree& tree, const RlInstance& instance, const Environment& env) {
  RlProcess process{.name = instance.name, .title = instance.title, .args = {"serve"}};
  const std::string model = FlagText(instance.flags, "model", "");
  if (!model.empty()) process.args.push_back(model);
  if (model.starts_with('-')) process.args = {"serve", "--model=" + model};
  for (const auto& [flag, given] : instance.flags) {
    const Setting* row = FindSetting(Command::kServe, flag);
    if (row != nullptr && flag != "model") Append(*row, given.value, process.args);
  }
  process.resolved = Resolved(instance.flags);
  if (const Json* shared = tree.Find("env_vars")) AddVariables(*shared, process);
  AddVariables(instance.env_vars, process);

  Environment all = env;
  for (const auto& [name, value] : process.env) all[name] = value;
  auto parsed = ParseServe(std::span(process.args).subspan(1), all);
  if (!parsed) {
    Error error = std::move(parsed).error();
    std::string flag = error.param;
    flag.erase(0, std::min(flag.find_first_not_of('-'), flag.size()));
    const auto found = instance.flags.find(flag.substr(0, flag.find('.')));
    const bool known = found != instance.flags.end() && !found->second.path.empty();
    if (model.empty()) {
      error.message = "no model: set [model] name, or [inference.model] name, or --model.name";
    } else if (known) {
      error.message = Format("{}: {}", KeyAt(tree, found->second.path), error.message);
    } else {
      error.message = Format("[{}] {}", instance.title, error.message);
    }
    return std::unexpected(std::move(error));
  }
  const ParallelOptions& parallel = parsed->options.engine.parallel;
  const auto tp = parallel.tensor_parallel_size, dp = parallel.data_parallel_size;
  process.means = parallel.enable_expert_parallel
                      ? Format("EP {} = TP {} x DP {}, {}", tp * dp, tp, dp, parallel.all2all_backend)
                      : Format("TP {} x DP {}, without expert parallelism", tp, dp);
  return process;
}

}  // namespace cadre::config
