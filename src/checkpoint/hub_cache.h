#pragma once
// MODEL on the command line: a folder, or a name on the Hugging Face hub that was downloaded before.
#include <string>

#include "base/error.h"

namespace cadre::checkpoint {

/// The variables that say where the cache lies; empty: not set. Read by config, nobody else asks the
/// environment.
struct HubEnvironment {
  std::string hf_hub_cache = {};           ///< HF_HUB_CACHE: first
  std::string huggingface_hub_cache = {};  ///< HUGGINGFACE_HUB_CACHE: the older spelling
  std::string hf_home = {};                ///< HF_HOME: then its folder hub
  std::string xdg_cache_home = {};         ///< XDG_CACHE_HOME: then huggingface/hub
  std::string home = {};                   ///< HOME: then .cache/huggingface/hub
};

/// The cache folder, or "" if nothing says where it is.
std::string HubCacheFolder(const HubEnvironment& environment);

struct ModelLocation {
  std::string folder;    ///< holds config.json and the weights
  std::string name;      ///< as it was asked for: the default of --served-model-name
  std::string revision;  ///< commit of the snapshot; empty for a folder
};

/// Finds MODEL. A folder that exists wins over a hub name. `revision` is a branch, tag or commit; empty means
/// main. Errors: kNotFound, which says where it looked and how to download; kInvalidArgument for an
/// impossible name.
Result<ModelLocation> LocateModel(const std::string& model, const std::string& revision,
                                  const HubEnvironment& environment);

}  // namespace cadre::checkpoint
