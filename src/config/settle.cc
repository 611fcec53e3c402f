#include "config/settle.h"

#include <algorithm>
#include <utility>

#include "config/value.h"

namespace cadre::config {
namespace {

/// A JsonKey seen as a row, so that members are parsed like flags.
Setting RowOf(const JsonKey& key) {
  return Setting{
      .name = key.key, .type = key.type, .fallback = key.fallback, .choices = key.choices, .min = key.min};
}

bool SameValue(const Json& a, const Json& b) {
  if (a.is_number() && b.is_number()) return a.AsDouble() == b.AsDouble();
  return a == b;
}

bool IsDefault(const Setting& setting, const Json& value) {
  if (value.is_null() || SameValue(value, FallbackValue(setting))) return true;
  if (value.is_bool() && !value.AsBool() && setting.fallback.empty()) return true;  // --no-x of an unset --x
  if (!value.is_object()) return false;
  for (const auto& [key, member] : value.AsObject()) {
    const JsonKey* known = FindJsonKey(setting.name, key);
    if (!known || !SameValue(member, FallbackValue(RowOf(*known)))) return false;
  }
  return true;
}

bool Contains(std::string_view list, std::string_view item) {
  const auto parts = SplitComma(list);
  return std::find(parts.begin(), parts.end(), item) != parts.end();
}

std::unexpected<Error> Refusal(const Setting& setting, const Given& given, std::string_view reason) {
  // Values are named only where they are the point: a token or path has no business in an error.
  const std::string value = setting.only.empty() ? "" : Format(" {}", ValueText(given.value));
  return FailParam(Code::kUnsupported, given.source, "{}{}: {}", given.source, value, reason);
}

std::string NearestKey(std::string_view option, std::string_view key) {
  std::string all, best;
  size_t least = 4;
  for (const JsonKey* known : JsonKeysOf(option)) {
    all += (all.empty() ? "" : ", ") + std::string(known->key);
    const bool inside = key.size() >= 4 && known->key.find(key) != key.npos;
    if (const size_t distance = inside ? 1 : EditDistance(key.substr(0, 80), known->key); distance < least) {
      least = distance;
      best = known->key;
    }
  }
  return best.empty() ? "it takes " + all : Format("did you mean '{}'?", best);
}

}  // namespace

Status Settlement::Take(const Given& given) {
  if (!given.older.empty()) {
    std::string now(given.setting->name);
    for (const std::string& key : given.path) now += "." + key;
    older_.insert({std::string(given.older), now});
  }
  auto [place, fresh] = given_.try_emplace(given.setting, given);
  Given& whole = place->second;
  if (!given.path.empty()) {
    if (fresh) whole.value = Json();
    whole.path.clear();
    whole.append = false;
    return TakeMember(given, whole);
  }
  if (!fresh && given.setting->type == Type::kAppended && given.value.is_array() && whole.value.is_array()) {
    for (const Json& item : given.value.AsArray()) whole.value.Push(item);
    return {};
  }
  Given before = std::exchange(whole, given);
  if (fresh || !whole.value.is_object()) return {};
  for (const std::string& key : single_members_[given.setting]) {
    if (const Json* value = before.value.Find(key); value && !whole.value.Find(key))
      whole.value.Set(key, *value);
  }
  return {};
}

Status Settlement::TakeMember(const Given& given, Given& whole) {
  whole.source = Format("--{}", given.setting->name);
  if (!whole.value.is_object()) whole.value = Json(Json::Object{});
  Json* at = &whole.value;
  for (size_t i = 0; i < given.path.size(); ++i) {
    std::string key = given.path[i];
    if (i == 0 && !JsonKeysOf(given.setting->name).empty()) std::replace(key.begin(), key.end(), '-', '_');
    if (i == 0) single_members_[given.setting].insert(key);
    if (!at->Find(key)) at->Set(key, Json());
    at = at->Find(key);
    if (i + 1 < given.path.size() && !at->is_object()) *at = Json(Json::Object{});
  }
  if (!given.append) {
    *at = given.value;
    return {};
  }
  if (!at->is_array() && !at->is_null()) {
    return FailParam(Code::kInvalidArgument, given.source, "{}+ adds to a list, but {} is set to {}",
                     given.source, given.source, ValueText(*at));
  }
  for (const Json& item : given.value.AsArray()) at->Push(item);
  return {};
}

Status Settlement::TakeEnvironment(const Environment& env) {
  for (const auto& [name, text] : env) {
    const Setting* variable = FindVariable(name);
    if (!variable) {
      if (name.starts_with("VLLM_")) unknown_variables_.push_back(name);
      continue;
    }
    if (text.empty()) continue;
    if (variable->kind == Kind::kNoEffect) {
      silent_names_[variable].insert(name);
      continue;
    }
    if (variable->forward.empty()) {
      Given given{.setting = variable, .source = name};
      // Variables read elsewhere (caches, binding) are not this row's business, unless they have a range.
      CADRE_ASSIGN(given.value, ParseValue(*variable, Trim(text), name));
      variables_[variable] = std::move(given);
    } else if (const Setting* flag = FindSetting(command_, variable->forward)) {
      Given given{.setting = flag, .source = name};
      CADRE_ASSIGN(given.value, ParseValue(*flag, flag->type == Type::kString ? Trim(text) : text, name));
      CADRE_TRY(Take(given));
    }
  }
  return {};
}

Status Settlement::TakeFile(const Json& file, const std::string& path) {
  for (const auto& [key, value] : file.AsObject()) {
    if (key == "config")
      return FailParam(Code::kInvalidArgument, "--config", "{}: a file cannot name another --config", path);
    auto match = ResolveName(command_, key == "model_tag" ? "model" : key, false);
    if (!match) return FailParam(match.error().code, key, "{}: {}", path, match.error().message);
    Given given{.setting = match->setting,
                .path = match->path,
                .older = match->older,
                .source = Format("{} in {}", key, path)};
    if (!match->path.empty()) {
      given.value = value;
    } else {
      CADRE_ASSIGN(given.value, ConvertValue(*match->setting, value, given.source));
      if (match->negated && given.value.is_bool()) given.value = Json(!given.value.AsBool());
    }
    CADRE_TRY(Take(given));
  }
  return {};
}

Status Settlement::FillMembers(const Setting& setting, Given& given, const Targets& targets) {
  if (!given.value.is_object() || JsonKeysOf(setting.name).empty()) return {};
  for (auto& [key, value] : given.value.AsObject()) {
    const JsonKey* known = FindJsonKey(setting.name, key);
    const std::string what = Format("--{}.{}", setting.name, key);
    if (!known) {
      return FailParam(Code::kInvalidArgument, what, "--{} has no member '{}'; {}", setting.name, key,
                       NearestKey(setting.name, key));
    }
    CADRE_ASSIGN(value, ConvertValue(RowOf(*known), value, what));
    if (known->set) known->set(targets, value);
  }
  return {};
}

Status Settlement::Fill(const Targets& targets) {
  for (const Group& group : GroupsOf(command_)) {
    for (const Setting& setting : group.settings) {
      const auto found = given_.find(&setting);
      if (found != given_.end()) CADRE_TRY(FillMembers(setting, found->second, targets));
      Json value = found == given_.end() ? FallbackValue(setting) : found->second.value;
      if (value.is_object() && value.AsObject().empty()) value = Json();  // {} says nothing
      if (setting.set && setting.forward.empty()) setting.set(targets, value);
    }
  }
  for (const auto& [variable, given] : variables_) {
    if (variable->set) variable->set(targets, given.value);
  }
  return {};
}

Status Settlement::Refuse() const {
  for (const auto* table : {&given_, &variables_}) {
    for (const auto& [setting, given] : *table) {
      if (setting->kind == Kind::kNotBuilt && !IsDefault(*setting, given.value))
        return Refusal(*setting, given, setting->text);
      if (!setting->only.empty() && given.value.is_string() &&
          !Contains(setting->only, given.value.AsString())) {
        return Refusal(*setting, given, setting->only_reason);
      }
    }
  }
  return {};
}

std::vector<Notice> Settlement::Notices() const {
  // One line a reason; in the order of the table's reasons, so that runs compare.
  std::map<std::string_view, std::string> by_reason;
  const auto add = [&](std::string_view reason, std::string_view name) {
    std::string& names = by_reason[reason];
    names += (names.empty() ? "" : ", ") + std::string(name);
  };
  for (const auto& [setting, given] : given_) {
    if (setting->kind == Kind::kNoEffect) add(setting->text, given.source);
  }
  for (const auto& [setting, names] : silent_names_) {
    for (const std::string& name : names) add(setting->text, name);
  }
  std::vector<Notice> notices;
  for (const auto& [reason, names] : by_reason) {
    notices.push_back({false, Format("{}: no effect here. {}", names, reason)});
  }
  for (const auto& [older, now] : older_) {
    notices.push_back({false, Format("--{} is the older spelling of --{}", older, now)});
  }
  for (const std::string& name : unknown_variables_) {
    notices.push_back({true, "Unknown vLLM environment variable detected: " + name});
  }
  return notices;
}

const Given* Settlement::Find(std::string_view name) const {
  const auto found = given_.find(FindSetting(command_, name));
  return found == given_.end() ? nullptr : &found->second;
}

}  // namespace cadre::config
