#include <charconv>

#include "app/run.h"
#include "deploy/acceptor_process.h"
#include "deploy/signals.h"

namespace cadre::app {

int RunAcceptor(Args args, const config::Environment& env) {
  int number = -1;
  if (args.size() >= 2) std::from_chars(args[0].data(), args[0].data() + args[0].size(), number);
  if (number < 0 || args[1] != "serve") {
    return Fail({Code::kInvalidArgument, "cadre acceptor is started by cadre serve, not by hand", {}});
  }
  const auto parsed = config::ParseServe(args.subspan(2), env);
  if (!parsed) return Fail(parsed.error());
  StartLog(parsed->options.engine.log_level, false, {});  // the parent has said the notices
  deploy::BlockStopSignals();  // the parent stops us; a Ctrl-C on the terminal reaches all processes
  const Status status = deploy::RunAcceptor(parsed->options, number);
  return status ? 0 : ExitCode(status.error().code);  // the parent has heard why
}

}  // namespace cadre::app
