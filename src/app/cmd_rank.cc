#include <charconv>

#include "app/run.h"
#include "deploy/rank_process.h"
#include "deploy/signals.h"

namespace cadre::app {
namespace {

template <typename Parse>
int RunAs(Parse parse, Args args, const config::Environment& env, int rank) {
  const auto parsed = parse(args, env);
  if (!parsed) return Fail(parsed.error());
  const config::EngineOptions& options = parsed->options.engine;
  StartLog(options.log_level, false, {});  // the parent has said the notices
  deploy::BlockStopSignals();  // the parent drains us; a Ctrl-C on the terminal reaches all processes
  const Status status = deploy::RunRank(options, rank);
  return status ? 0 : Fail(status.error());
}

}  // namespace

int RunRank(Args args, const config::Environment& env) {
  int rank = -1;
  if (args.size() >= 2) std::from_chars(args[0].data(), args[0].data() + args[0].size(), rank);
  if (rank < 0)
    return Fail({Code::kInvalidArgument, "cadre rank is started by cadre serve, not by hand", {}});
  const std::string& command = args[1];
  const Args rest = args.subspan(2);
  if (command == "serve") return RunAs(config::ParseServe, rest, env, rank);
  if (command == "generate") return RunAs(config::ParseGenerate, rest, env, rank);
  if (command == "bench" && !rest.empty()) {
    if (rest[0] == "latency") return RunAs(config::ParseBenchLatency, rest.subspan(1), env, rank);
    if (rest[0] == "throughput") return RunAs(config::ParseBenchThroughput, rest.subspan(1), env, rank);
  }
  return Fail({Code::kInvalidArgument, Format("cadre rank cannot belong to the command '{}'", command), {}});
}

}  // namespace cadre::app
