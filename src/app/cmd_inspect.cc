#include "app/run.h"

namespace cadre::app {
namespace {

Status Run(const config::InspectOptions& options) {
  return cadre::Fail(Code::kUnsupported,
                     "cadre inspect is not wired to an engine in this build; it would have run {}",
                     options.engine.model.model);
}

}  // namespace

int Inspect(Args args, const config::Environment& env) {
  return RunParsed(config::ParseInspect, args, env, Run);
}

}  // namespace cadre::app
