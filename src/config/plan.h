#pragma once
// What `cadre plan` keeps of its command line beside the options: what was said at all, and what the launch
// lines repeat.
#include "base/error.h"
#include "config/command_options.h"
#include "config/settle.h"

namespace cadre::config {

/// Fills `given`, `passed_on` and `eplb_config`; a bare number of --memory-per-host becomes GiB. Errors:
/// kInvalidArgument for flags of one host's part, which the plan chooses itself.
Status SettlePlan(const Settlement& settled, PlanOptions& plan);

}  // namespace cadre::config
