#pragma once
// Servers of this program started for a measurement: one alone, or a prefill and a decode server with a
// router, each on cores of its own.
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "config/command_options.h"
#include "http/client.h"
#include "sys/process.h"

namespace cadre::app {

struct PlannedServer {
  std::string title;
  std::vector<std::string> args;  ///< of this program
  std::vector<std::pair<std::string, std::string>> env;
  int port = 0;
  std::string health;  ///< the path that says 200 when it is ready

  /// As one would type it.
  std::string CommandLine() const;
};

/// Servers in the order in which they are started; the last is the one that is asked.
struct ServerSet {
  std::string name;
  std::vector<PlannedServer> servers;
};

/// "-a  b" -> {"-a", "b"}.
std::vector<std::string> Words(const std::string& text);

/// One server on all of `cpus`, then a pair on the same; ports are taken from `ports` in their order (4 of
/// them). Errors: kInvalidArgument if there are no cores for two, or --model is not said.
Result<std::vector<ServerSet>> PlanServerSets(const config::BenchServeOptions& options,
                                              const std::vector<int>& cpus, const std::vector<int>& ports);

/// Ports of the loopback interface that are free now.
Result<std::vector<int>> FreePorts(size_t count);

class RunningServers {
 public:
  /// Starts them one after another and waits until each is ready. Call from a thread that lives as long as
  /// they do. Errors: kUnavailable with the last lines of the one that did not start, kDeadlineExceeded.
  static Result<std::unique_ptr<RunningServers>> Start(const ServerSet& set, Duration patience);
  /// SIGTERM in the opposite order, SIGKILL to who does not go.
  ~RunningServers();
  RunningServers(const RunningServers&) = delete;
  RunningServers& operator=(const RunningServers&) = delete;

  std::string url() const;
  /// The sum of a metric over all its labels and servers that have it; 0 if none has.
  double Metric(const std::string& name) const;

 private:
  struct Running {
    PlannedServer planned;
    std::unique_ptr<sys::Child> child;
    std::unique_ptr<http::Client> client;
  };
  RunningServers() = default;
  static Status AwaitReady(Running& server, TimePoint deadline);

  std::vector<Running> running_;
};

/// The sum of a metric over all its labels in a text of Prometheus' format; 0 if it is not there.
double SumOfMetric(std::string_view text, std::string_view name);

}  // namespace cadre::app
