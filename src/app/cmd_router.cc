// cadre router: one address for several servers.
#include <algorithm>

#include "app/router_tokens.h"
#include "app/run.h"
#include "deploy/signals.h"
#include "route/router.h"

namespace cadre::app {
namespace {

Duration Time(double seconds) {
  return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(seconds));
}

Status AddWorkers(const std::vector<std::string>& urls, const std::vector<std::string>& kv_addresses,
                  route::Role role, int64_t dp_size, std::vector<route::WorkerAddress>& all) {
  for (size_t i = 0; i < urls.size(); ++i) {
    CADRE_ASSIGN(route::WorkerAddress address, route::ParseWorkerUrl(urls[i], role));
    if (i < kv_addresses.size()) address.kv_address = kv_addresses[i];
    for (int64_t rank = 0; rank < dp_size; ++rank) {
      if (dp_size > 1) address.dp_rank = static_cast<int>(rank);
      all.push_back(address);
    }
  }
  return {};
}

Status AddServices(const std::vector<std::string>& urls, route::Role role,
                   std::vector<route::DnsSource>& all) {
  for (const std::string& url : urls) {
    CADRE_ASSIGN(route::WorkerAddress address, route::ParseWorkerUrl(url, role));
    all.push_back({std::move(address)});
  }
  return {};
}

void TakeTrust(const config::RouterOptions& from, route::Options& to) {
  to.retry = {.max_attempts = static_cast<int>(from.retry_max_retries),
              .initial_backoff = Time(from.retry_initial_backoff_ms / 1e3),
              .max_backoff = Time(from.retry_max_backoff_ms / 1e3),
              .multiplier = from.retry_backoff_multiplier,
              .jitter = from.retry_jitter_factor};
  to.health = {.path = from.health_check_endpoint,
               .interval = Time(from.health_check_interval_s),
               .startup_interval = Time(from.worker_startup_check_interval_s),
               .timeout = Time(from.health_check_timeout_s),
               .failure_threshold = static_cast<int>(from.health_failure_threshold),
               .success_threshold = static_cast<int>(from.health_success_threshold)};
  to.breaker = {.enabled = !from.disable_circuit_breaker,
                .failure_threshold = static_cast<int>(from.cb_failure_threshold),
                .success_threshold = static_cast<int>(from.cb_success_threshold),
                .open_time = Time(from.cb_timeout_s),
                .window = Time(from.cb_window_s)};
}

void TakePolicies(const config::RouterOptions& from, route::Options& to) {
  to.policy = {.name = from.policy,
               .cache_threshold = from.cache_threshold,
               .balance_abs = from.balance_abs_threshold,
               .balance_rel = from.balance_rel_threshold,
               .max_tree_bytes = from.max_tree_size};
  to.prefill_policy = to.decode_policy = to.policy;
  to.prefill_policy.name = from.prefill_policy.value_or(from.policy);
  to.decode_policy.name = from.decode_policy.value_or(from.policy);
}

bool CountsTokens(const route::Options& options) {
  const auto counts = [](const route::PolicyOptions& policy) { return policy.name == "cache_aware"; };
  if (!options.pairs) return counts(options.policy);
  return counts(options.prefill_policy) || counts(options.decode_policy) || options.prefill_threshold > 0;
}

Result<route::Options> OptionsOf(const config::RouterOptions& from) {
  route::Options to;
  to.pairs = from.pairs;
  const int64_t dp = from.intra_node_data_parallel_size;
  CADRE_TRY(AddWorkers(from.worker_urls, {}, route::Role::kPlain, dp, to.workers));
  CADRE_TRY(AddWorkers(from.prefill, from.prefill_kv_addrs, route::Role::kPrefill, dp, to.workers));
  CADRE_TRY(AddWorkers(from.decode, from.decode_kv_addrs, route::Role::kDecode, dp, to.workers));
  CADRE_TRY(AddServices(from.worker_dns, route::Role::kPlain, to.dns));
  CADRE_TRY(AddServices(from.prefill_dns, route::Role::kPrefill, to.dns));
  CADRE_TRY(AddServices(from.decode_dns, route::Role::kDecode, to.dns));
  to.worker_file = from.worker_file;
  to.dns_interval = Time(from.dns_interval_s);
  TakeTrust(from, to);
  TakePolicies(from, to);
  to.http.host = from.host;
  to.http.port = from.port;
  to.http.num_threads = static_cast<int>(from.threads);
  to.http.max_body_bytes = from.max_payload_size;
  to.http.max_total_body_bytes = std::max(to.http.max_total_body_bytes, from.max_payload_size);
  to.request_timeout = Time(from.request_timeout_s);
  to.max_concurrent_requests = from.max_concurrent_requests;
  to.api_key = from.api_key;
  if (!from.request_id_headers.empty()) to.request_id_headers = from.request_id_headers;
  to.kv_transfer_mode = from.kv_transfer_mode == "pull"   ? route::KvTransferMode::kPull
                        : from.kv_transfer_mode == "push" ? route::KvTransferMode::kPush
                                                          : route::KvTransferMode::kAuto;
  to.prefill_threshold = from.prefill_threshold;
  if (from.tokenizer && CountsTokens(to)) {
    CADRE_ASSIGN(to.tokenize, LoadTokenize(from));
  } else if (from.tokenizer) {
    LogWarning("--tokenizer has no effect: no policy is cache_aware and there is no --prefill-threshold");
  }
  to.metrics_port = from.prometheus_port.value_or(-1);
  to.metrics_host = from.prometheus_host;
  return to;
}

Status Run(const config::RouterOptions& from) {
  deploy::BlockStopSignals();
  http::RaiseOpenFileLimit();
  CADRE_ASSIGN(route::Options options, OptionsOf(from));
  const std::string policy =
      from.pairs ? Format("prefill {}, decode {}", options.prefill_policy.name, options.decode_policy.name)
                 : options.policy.name;
  CADRE_ASSIGN(const auto router, route::Router::Start(std::move(options)));
  LogInfo("ready: {} ({})", router->address(), policy);
  if (!router->metrics_address().empty()) LogInfo("metrics: {}/metrics", router->metrics_address());
  deploy::WaitForStopSignal();
  LogInfo("stopping; running requests have up to {} s, a second signal ends at once",
          from.shutdown_timeout_s);
  router->Stop(Now() + std::chrono::seconds(from.shutdown_timeout_s));
  return {};
}

}  // namespace

int Router(Args args, const config::Environment& env) {
  return RunParsed(config::ParseRouter, args, env, Run);
}

}  // namespace cadre::app
