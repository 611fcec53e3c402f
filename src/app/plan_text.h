#pragma once
// How `cadre plan` shows a plan.
#include <cstdint>
#include <string>

#include "base/json.h"
#include "deploy/deployment_plan.h"

namespace cadre::app {

std::string PlanText(const deploy::DeploymentPlan& plan);
/// All numbers in bytes and tokens.
Json PlanJson(const deploy::DeploymentPlan& plan);

}  // namespace cadre::app
