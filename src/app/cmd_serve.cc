#include "app/run.h"

namespace cadre::app {
namespace {

Status Run(const config::ServeOptions& options) {
  return cadre::Fail(Code::kUnsupported,
                     "cadre serve is not wired to an engine in this build; it would have run {}",
                     options.engine.model.model);
}

}  // namespace

int Serve(Args args, const config::Environment& env) {
  return RunParsed(config::ParseServe, args, env, Run);
}

}  // namespace cadre::app
