#pragma once
// The process environment. Cadre reads it here and nowhere else, once, and everybody else is handed a map: so
// tests bring their own, and no room below has an input that its caller does not see.
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "config/settings.h"

namespace cadre::config {

using Environment = std::map<std::string, std::string, std::less<>>;

/// The whole environment of this process. Call it from main, before threads start.
Environment ReadEnvironment();

/// The value, or "" if the variable is unset.
std::string_view Get(const Environment& env, std::string_view name);

/// The variables that Cadre knows, as rows of the same kind as flags (`forward` names the flag whose default
/// it sets).
const std::vector<Group>& EnvironmentGroups();
const Setting* FindVariable(std::string_view name);

/// Where the Hugging Face cache lies, as huggingface_hub finds it, and which variable said so.
struct HubCache {
  std::string folder;  ///< "" if not even HOME is set
  std::string source;
};
HubCache FindHubCache(const Environment& env);

}  // namespace cadre::config
