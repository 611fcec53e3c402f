#pragma once
// How `cadre plan` shows a plan.
#include <cstdint>
#include <string>

#include "base/json.h"
#include "deploy/deployment_plan.h"

namespace cadre::app {

/// "1.31 TB", "654 GB", "0.60 GB", "44 MB": thousands, as vendors and the guides count.
std::string DecimalBytes(int64_t bytes);

std::string PlanText(const deploy::DeploymentPlan& plan);
/// All numbers in bytes and tokens.
Json PlanJson(const deploy::DeploymentPlan& plan);

}  // namespace cadre::app
