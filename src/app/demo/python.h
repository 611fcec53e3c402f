#pragma once
// `cadre demo --python`: the Python demonstration once for each rank, started as torchrun would start it.
#include "base/error.h"
#include "config/command_options.h"
#include "config/environment.h"

namespace cadre::app::demo {

/// Runs examples/expert_parallel/demo.py with the python3 of PATH. The variables are torchrun's (RANK,
/// WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT), and PYTHONPATH leads to the package.
/// If a rank fails the others have a little time to say so themselves, then they are ended. Errors: kNotFound
/// for what is missing and how to get it; kUnavailable with the first rank that failed.
Status RunPython(const config::DemoOptions& options, const config::Environment& env);

}  // namespace cadre::app::demo
