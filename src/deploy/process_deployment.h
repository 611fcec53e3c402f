#pragma once
// Ranks as processes of this node: started, joined with those of other nodes, watched, and ended together.
#include "deploy/deployment.h"

namespace cadre::deploy {

/// Waits for the other nodes if there are any, starts one process a rank and waits until all serve. Errors:
/// which rank failed, how, and its last log lines; why nodes could not meet.
Result<std::unique_ptr<Deployment>> StartProcesses(const config::EngineOptions& options, ModelSetup setup,
                                                   const StartOptions& start);

}  // namespace cadre::deploy
