#pragma once
// The one table of routes: ours, and those of vLLM 0.32 that are not built yet and say so.
#include <span>
#include <string_view>

#include "serve/api.h"

namespace cadre::serve {

struct Route {
  std::string_view method, path;
  SyncHandler sync = nullptr;
  AsyncHandler async = nullptr;
  bool takes_json = false;  ///< the body is JSON
  bool always = false;      ///< answered while the server drains, too
  bool dev_only = false;    ///< needs ServeOptions::dev_mode (VLLM_SERVER_DEV_MODE=1)
  bool is_built() const { return sync != nullptr || async != nullptr; }
};

std::span<const Route> Routes();

/// The route (HEAD finds what GET does), or kNotFound, or kInvalidArgument with `param` "method" and the
/// allowed methods in `message`. A part "{...}" of a route's path fits any one part.
Result<const Route*> FindRoute(std::string_view method, std::string_view path, bool dev_mode);

}  // namespace cadre::serve
