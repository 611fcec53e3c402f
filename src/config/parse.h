#pragma once
// The room's front door: words and environment -> checked options.
//
// Order of precedence, lowest first: the default, an environment variable, --config FILE, the command line
// (last wins).
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "config/command_options.h"
#include "config/environment.h"
#include "config/serve_options.h"

namespace cadre::config {

/// Something to log before the command runs: settings without effect, unknown variables.
struct Notice {
  bool warning = false;
  std::string text;
};

template <typename Options>
struct Parsed {
  Options options;
  std::vector<Notice> notices;
  std::optional<std::string> help;  ///< set: print this and stop; `options` are then the defaults
};

/// `args` are the words after the command's name. Errors: kInvalidArgument (a value or combination that makes
/// no sense), kUnsupported (refused by name), kNotFound (the --config file); `param` names the flag.
Result<Parsed<ServeOptions>> ParseServe(std::span<const std::string> args, const Environment& env);
Result<Parsed<GenerateOptions>> ParseGenerate(std::span<const std::string> args, const Environment& env);
Result<Parsed<InspectOptions>> ParseInspect(std::span<const std::string> args, const Environment& env);
Result<Parsed<BenchEplbOptions>> ParseBenchEplb(std::span<const std::string> args, const Environment& env);
Result<Parsed<DemoOptions>> ParseDemo(std::span<const std::string> args, const Environment& env);
Result<Parsed<BenchA2aOptions>> ParseBenchA2a(std::span<const std::string> args, const Environment& env);
Result<Parsed<BenchStepOptions>> ParseBenchStep(std::span<const std::string> args, const Environment& env);
Result<Parsed<DoctorOptions>> ParseDoctor(std::span<const std::string> args, const Environment& env);
Result<Parsed<PlanOptions>> ParsePlan(std::span<const std::string> args, const Environment& env);
Result<Parsed<RouterOptions>> ParseRouter(std::span<const std::string> args, const Environment& env);
Result<Parsed<BenchLatencyOptions>> ParseBenchLatency(std::span<const std::string> args,
                                                      const Environment& env);
Result<Parsed<BenchThroughputOptions>> ParseBenchThroughput(std::span<const std::string> args,
                                                            const Environment& env);
Result<Parsed<BenchServeOptions>> ParseBenchServe(std::span<const std::string> args, const Environment& env);

}  // namespace cadre::config
