// cadre plan: what a deployment would take, before there are hosts or weights.
#include "app/plan_text.h"
#include "app/run.h"
#include "app/terminal.h"
#include "deploy/deployment_plan.h"

namespace cadre::app {
namespace {

Status Run(const config::PlanOptions& options) {
  CADRE_ASSIGN(const deploy::DeploymentPlan plan, deploy::PlanDeployment(options));
  // Names in the file are a stranger's words.
  WriteModelText(options.json ? PlanJson(plan).DumpPretty() + "\n" : PlanText(plan));
  return plan.chosen.fits;  // shown, and still an error
}

}  // namespace

int Plan(Args args, const config::Environment& env) {
  return RunParsed(config::ParsePlan, args, env, Run);
}

}  // namespace cadre::app
