#include "app/run.h"

namespace cadre::app {
namespace {

Status Run(const config::GenerateOptions& options) {
  return cadre::Fail(Code::kUnsupported,
                     "cadre generate is not wired to an engine in this build; it would have run {}",
                     options.engine.model.model);
}

}  // namespace

int Generate(Args args, const config::Environment& env) {
  return RunParsed(config::ParseGenerate, args, env, Run);
}

}  // namespace cadre::app
