#pragma once
// bench serve --pd: the same load for one server and for a pair of prefill and decode on the same cores.
#include "app/mix_report.h"
#include "config/command_options.h"

namespace cadre::app {

/// Starts the servers, one arrangement after the other, sends the load, prints the table and writes --json
/// and --svg. Call from the main thread. Errors: those of the flags, of servers that do not start, and
/// kUnavailable where all requests of one arrangement failed.
Status CompareWithPair(const config::BenchServeOptions& options, const ReportOptions& report,
                       const Goodput& goodput);

/// --svg, if it is said. `model`: for the title.
Status WriteLatencyPicture(const config::BenchServeOptions& options, const std::string& model,
                           const std::vector<LoadRun>& runs);

}  // namespace cadre::app
