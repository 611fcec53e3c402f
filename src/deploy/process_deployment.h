#pragma once
// Ranks as processes of this host: started, joined, watched, and ended together.
#include "deploy/deployment.h"

namespace cadre::deploy {

/// Starts one process a rank and waits until all serve. Errors: which rank failed, how, and its last log
/// lines.
Result<std::unique_ptr<Deployment>> StartProcesses(const config::EngineOptions& options, ModelSetup setup);

}  // namespace cadre::deploy
