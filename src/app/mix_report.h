#pragma once
// A mixed load told apart, chats from long prompts, for one server or for several side by side.
#include <optional>
#include <string>
#include <vector>

#include "app/serve_metrics.h"

namespace cadre::app {

/// The same load, sent to one arrangement of servers.
struct LoadRun {
  std::string name;                   ///< "one server"
  std::vector<std::string> commands;  ///< how its servers were started, if by us
  LoadResult load;
  /// Of a pair: requests whose keys and values came from prefill only in part or not at all.
  std::optional<int64_t> recomputed;
};

/// Those requests of a load that are, or are not, long prompts.
LoadResult OfKind(const LoadResult& load, bool is_long);

/// A column for each run: times to the first token and between tokens of chats, those of long prompts if the
/// load has any, and throughput of all.
std::string MixTable(const std::vector<LoadRun>& runs);

/// {"chats": result, "long_prompts": result} as ServeResult writes them.
Json MixResult(const LoadResult& load, const ReportOptions& options);

}  // namespace cadre::app
