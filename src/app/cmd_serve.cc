#include <optional>

#include "app/run.h"
#include "base/log.h"
#include "deploy/api_front.h"
#include "deploy/signals.h"
#include "deploy/stats_log.h"

namespace cadre::app {
namespace {

// What a person needs next: the address, and a line to paste.
void SayReady(const config::ServeOptions& options, const std::string& address, double seconds) {
  LogInfo("ready after {:.1f} s: {}", seconds, address);
  if (options.http.uds) return;
  const auto scheme_end = address.find("://") + 3;
  const auto port_begin = address.rfind(':');
  const std::string local = address.substr(0, scheme_end) + "127.0.0.1" + address.substr(port_begin);
  if (options.engine.model.skip_tokenizer_init) {
    LogInfo("try: curl {}/v1/completions -H 'Content-Type: application/json' -d '{{\"prompt\": [1, 2, 3]}}'", local);
  } else {
    LogInfo("try: curl {}/v1/chat/completions -H 'Content-Type: application/json' "
            "-d '{{\"messages\": [{{\"role\": \"user\", \"content\": \"What is 17 + 25?\"}}]}}'", local);
  }
}

Status Run(const config::ServeOptions& options) {
  const TimePoint start = Now();
  deploy::BlockStopSignals();
  CADRE_ASSIGN(const auto deployment, deploy::Deployment::Start(options.engine));
  CADRE_ASSIGN(const auto front, deploy::ApiFront::Start(options, *deployment));
  SayReady(options, front->address(), SecondsSince(start));
  std::optional<deploy::StatsLog> stats_log;
  if (options.api.log_stats && options.api.log_stats_interval_s > 0) {
    stats_log.emplace(deployment->engine(), std::chrono::duration_cast<Duration>(std::chrono::duration<double>(
                                                options.api.log_stats_interval_s)));
  }

  const int signal = deploy::WaitForStopSignalOr(deployment->failure_fd());
  if (signal == 0) {
    const Error failure = deployment->Failure();
    front->Stop(Now() + std::chrono::seconds(1));
    return std::unexpected(failure);
  }
  const auto grace = std::chrono::seconds(options.http.shutdown_timeout_s.value_or(30));
  LogInfo("stopping; running requests have up to {} s, a second signal ends at once", grace.count());
  front->Stop(Now() + grace);
  return {};
}

}  // namespace

int Serve(Args args, const config::Environment& env) { return RunParsed(config::ParseServe, args, env, Run); }

}  // namespace cadre::app
