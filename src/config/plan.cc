#include "config/plan.h"

#include <algorithm>
#include <array>

#include "config/value.h"

namespace cadre::config {
namespace {

// One host's part, which the plan chooses.
constexpr std::array<std::string_view, 10> kOneHost = {"data-parallel-size-local",
                                                       "data-parallel-rank",
                                                       "data-parallel-start-rank",
                                                       "data-parallel-hybrid-lb",
                                                       "data-parallel-external-lb",
                                                       "headless",
                                                       "nnodes",
                                                       "node-rank",
                                                       "master-addr",
                                                       "master-port"};

// What the plan writes by itself, as given or as chosen.
constexpr std::array<std::string_view, 12> kWritten = {"model",
                                                       "tensor-parallel-size",
                                                       "data-parallel-size",
                                                       "enable-expert-parallel",
                                                       "enable-eplb",
                                                       "eplb-config",
                                                       "all2all-backend",
                                                       "prefill-all2all-backend",
                                                       "log-level",
                                                       "decode-all2all-backend",
                                                       "data-parallel-address",
                                                       "data-parallel-rpc-port"};

bool IsIn(std::span<const std::string_view> names, std::string_view name) {
  return std::ranges::find(names, name) != names.end();
}

// A flag as it would be typed, so that the parser reads the same value back.
void AddWords(const Setting& setting, const Json& value, std::vector<std::string>& words) {
  const std::string flag = Format("--{}", setting.name);
  if (value.is_null()) return;
  if (setting.type == Type::kTrue || setting.type == Type::kBool) {
    if (value.AsBool()) words.push_back(flag);
    if (!value.AsBool() && setting.type == Type::kBool) words.push_back(Format("--no-{}", setting.name));
    return;
  }
  if (setting.type == Type::kStrings) {
    words.push_back(flag);
    for (const Json& item : value.AsArray()) words.push_back(ValueText(item));
    return;
  }
  if (setting.type == Type::kAppended) {
    for (const Json& item : value.AsArray()) words.push_back(Format("{}={}", flag, ValueText(item)));
    return;
  }
  const std::string text = value.is_object() || value.is_array() ? value.Dump() : ValueText(value);
  if (text.empty() || text.starts_with('-')) {
    words.push_back(Format("{}={}", flag, text));
  } else {
    words.insert(words.end(), {flag, text});
  }
}

}  // namespace

Status SettlePlan(const Settlement& settled, PlanOptions& plan) {
  constexpr int64_t kLeast = 1 << 20;  // no host has less, so a smaller number is one of GiB
  if (plan.memory_per_host && *plan.memory_per_host < kLeast) *plan.memory_per_host <<= 30;
  for (const Group& group : GroupsOf(Command::kPlan)) {
    for (const Setting& setting : group.settings) {
      const Given* given = settled.Find(setting.name);
      if (given == nullptr) continue;
      if (IsIn(kOneHost, setting.name)) {
        return FailParam(Code::kInvalidArgument, given->source,
                         "{} is one host's part, which cadre plan chooses for every host; leave it out, and "
                         "say --hosts, --ranks-per-host, -tp or -dp instead",
                         given->source);
      }
      plan.given.emplace_back(setting.name);
      if (setting.name == "eplb-config") plan.eplb_config = given->value;
      if (group.name != PlanGroup().name && !IsIn(kWritten, setting.name) && setting.forward.empty())
        AddWords(setting, given->value, plan.passed_on);
    }
  }
  return {};
}

}  // namespace cadre::config
