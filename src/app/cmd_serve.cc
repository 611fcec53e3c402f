#include <optional>

#include "app/run.h"
#include "base/log.h"
#include "deploy/front.h"
#include "deploy/signals.h"
#include "deploy/stats_log.h"

namespace cadre::app {
namespace {

// The first words of a curl line that reaches the server as it was started.
std::string CurlTo(const config::HttpOptions& options, const std::string& address) {
  std::string curl = "curl ";
  if (options.uds) {
    curl += Format("--unix-socket {} http://localhost", *options.uds);
  } else {
    const auto scheme_end = address.find("://") + 3;
    const std::string host = options.host.value_or("0.0.0.0") == "0.0.0.0" ? "127.0.0.1" : *options.host;
    if (address.starts_with("https")) curl += "-k ";
    curl += address.substr(0, scheme_end) + (host.contains(':') ? "[" + host + "]" : host) +
            address.substr(address.rfind(':'));
  }
  return curl;
}

// What a person needs next: the address, and a line to paste.
void SayReady(const config::ServeOptions& options, const std::string& address, double seconds) {
  LogInfo("ready after {:.1f} s: {}", seconds, address);
  const bool text = !options.engine.model.skip_tokenizer_init;
  const char* body = text ? R"({"messages": [{"role": "user", "content": "What is 17 + 25?"}]})"
                          : R"({"prompt": [1, 2, 3]})";
  LogInfo("try: {}/v1/{} -H 'Content-Type: application/json'{} -d '{}'", CurlTo(options.http, address),
          text ? "chat/completions" : "completions",
          options.http.api_keys.empty() ? "" : " -H 'Authorization: Bearer KEY'", body);
}

// Ends when the deployment does, or at a stop signal.
Status ServeRequests(const config::ServeOptions& options, deploy::Deployment& deployment,
                     deploy::Front& front) {
  std::optional<deploy::StatsLog> stats_log;
  if (options.api.log_stats && options.api.log_stats_interval_s > 0) {
    stats_log.emplace(deployment.engine(), std::chrono::duration_cast<Duration>(std::chrono::duration<double>(
                                               options.api.log_stats_interval_s)));
  }
  if (deploy::WaitForStopSignalOr({deployment.ended_fd(), front.failed_fd()}) == 0) {
    Status outcome = deployment.Outcome();
    if (!outcome) front.Fail(outcome.error());
    if (outcome) outcome = front.Outcome();
    front.Stop(Now() + std::chrono::seconds(1));
    return outcome;
  }
  const auto grace = std::chrono::seconds(options.http.shutdown_timeout_s.value_or(30));
  LogInfo("stopping; running requests have up to {} s, a second signal ends at once", grace.count());
  front.Stop(Now() + grace);
  return {};
}

// A node that only computes: the first node's front ends it.
Status RunHeadless(const config::ServeOptions& options, deploy::ModelSetup setup) {
  std::optional<deploy::EndOnStopSignal> starting([] {});
  CADRE_ASSIGN(const auto deployment, deploy::Deployment::Start(options.engine, std::move(setup)));
  starting.reset();
  if (deploy::WaitForStopSignalOr({deployment->ended_fd()}) == 0) return deployment->Outcome();
  LogInfo("stopping: this node leaves the deployment");
  return {};
}

// Everything that can be wrong without the weights is found first; a stop signal ends the start at once.
Status Run(const config::ServeOptions& options) {
  const TimePoint start = Now();
  deploy::BlockStopSignals();
  CADRE_ASSIGN(deploy::ModelSetup setup, deploy::PrepareModel(options.engine));
  if (setup.launch.headless) return RunHeadless(options, std::move(setup));
  CADRE_ASSIGN(const auto front, deploy::OpenFront(options, setup));
  std::optional<deploy::EndOnStopSignal> starting([&front] { front->Stop(Now()); });
  const int num_fronts = options.engine.parallel.api_server_count.value_or(1);
  CADRE_ASSIGN(const auto deployment,
               deploy::Deployment::Start(
                   options.engine, std::move(setup),
                   {.on_waiting = [&front](const std::string& text) { front->SetStarting(text); },
                    .num_fronts = num_fronts > 1 ? num_fronts : 0}));
  if (const Status serving = front->Serve(*deployment); !serving) {
    front->Stop(Now());
    CADRE_TRY(deployment->Outcome());  // a rank that died is why fronts could not reach it
    return serving;
  }
  starting.reset();
  SayReady(options, front->address(), SecondsSince(start));
  return ServeRequests(options, *deployment, *front);
}

}  // namespace

int Serve(Args args, const config::Environment& env) {
  return RunParsed(config::ParseServe, args, env, Run);
}

}  // namespace cadre::app
