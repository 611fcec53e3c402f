#pragma once
// The two deployments that `cadre bench step` compares.
#include "config/command_options.h"

namespace cadre::app {

/// Data and expert parallel ranks, each a process. The ranks' processes make the same from the same words.
config::EngineOptions RanksOptions(const config::BenchStepOptions& options);
/// One process with as many threads as they have together.
config::EngineOptions OneProcessOptions(const config::BenchStepOptions& options);

}  // namespace cadre::app
