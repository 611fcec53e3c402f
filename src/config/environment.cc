#include "config/environment.h"

#include <unistd.h>

extern char** environ;

namespace cadre::config {

Environment ReadEnvironment() {
  Environment env;
  for (char** entry = environ; entry && *entry; ++entry) {
    const std::string_view text(*entry);
    const size_t equals = text.find('=');
    if (equals != text.npos) env.emplace(text.substr(0, equals), text.substr(equals + 1));
  }
  return env;
}

std::string_view Get(const Environment& env, std::string_view name) {
  const auto found = env.find(name);
  return found == env.end() ? std::string_view() : std::string_view(found->second);
}

HubCache FindHubCache(const Environment& env) {
  // The order of huggingface_hub: HF_HUB_CACHE, its older name, HF_HOME, XDG_CACHE_HOME, HOME.
  struct Place {
    std::string_view variable, below;
  };
  constexpr Place kPlaces[] = {{"HF_HUB_CACHE", ""},
                               {"HUGGINGFACE_HUB_CACHE", ""},
                               {"HF_HOME", "/hub"},
                               {"XDG_CACHE_HOME", "/huggingface/hub"},
                               {"HOME", "/.cache/huggingface/hub"}};
  const std::string_view home = Get(env, "HOME");
  for (const Place& place : kPlaces) {
    std::string folder(Get(env, place.variable));
    if (folder.empty()) continue;
    if (folder == "~" || folder.starts_with("~/")) folder = std::string(home) + folder.substr(1);
    while (folder.size() > 1 && folder.ends_with('/')) folder.pop_back();
    return {folder + std::string(place.below), std::string(place.variable)};
  }
  return {};
}

}  // namespace cadre::config
