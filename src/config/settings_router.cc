// Flags of `cadre router`: those of vLLM's router, of prime-rl's proxy and of vLLM's toy proxy, and our own.
#include "config/settings.h"

namespace cadre::config {
namespace {

using R = RouterOptions;

constexpr std::string_view kPolicies =
    "cache_aware,round_robin,random,power_of_two,least_load,consistent_hash,sticky_round_robin,"
    "sticky_least_loaded";
constexpr std::string_view kNoKubernetes =
    "The Kubernetes API is not asked; name a headless service with --worker-dns, --prefill-dns or "
    "--decode-dns.";

constexpr Setting kWorkers[] = {
    Works("worker-urls", Type::kStrings, "", Into<&R::worker_urls>,
          "Servers, http://HOST:PORT; also the words without a flag. @N behind one asks its data parallel "
          "rank N."),
    Works("prefill", Type::kAppended, "", Into<&R::prefill>,
          "Servers that compute prompts; URLs with commas between, or the flag again.")
        .Alias("prefill-urls"),
    Works("decode", Type::kAppended, "", Into<&R::decode>,
          "Servers that answer from handed over KV; as --prefill.")
        .Alias("decode-urls"),
    Works("prefiller-hosts", Type::kStrings, "", Into<&R::prefiller_hosts>,
          "Hosts of prefill servers, beside --prefiller-ports; as vLLM's toy proxy.")
        .Alias("prefiller-host"),
    Works("prefiller-ports", Type::kStrings, "", Into<&R::prefiller_ports>, "Ports of prefill servers.")
        .Alias("prefiller-port"),
    Works("decoder-hosts", Type::kStrings, "", Into<&R::decoder_hosts>,
          "Hosts of decode servers, beside --decoder-ports.")
        .Alias("decoder-host"),
    Works("decoder-ports", Type::kStrings, "", Into<&R::decoder_ports>, "Ports of decode servers.")
        .Alias("decoder-port"),
    Works("prefill-kv-addrs", Type::kAppended, "", Into<&R::prefill_kv_addrs>,
          "HOST:PORT of each --prefill's P2pNcclConnector: the pair finds each other by the request's id "
          "alone."),
    Works("decode-kv-addrs", Type::kAppended, "", Into<&R::decode_kv_addrs>, "The same of each --decode."),
    Works("vllm-pd-disaggregation", Type::kTrue, "false", Into<&R::pairs>,
          "Workers are prefill and decode ones, also if only --worker-file names them."),
    Works("intra-node-data-parallel-size", Type::kInt, "1", Into<&R::intra_node_data_parallel_size>,
          "Each server is so many workers, its data parallel ranks, asked by X-data-parallel-rank.")
        .Range(1, 4096),
    Works("worker-file", Type::kString, "", Into<&R::worker_file>,
          "A file with a worker a line, URL or prefill URL or decode URL; it is watched."),
    Works("worker-dns", Type::kAppended, "", Into<&R::worker_dns>,
          "http://NAME:PORT of a headless service: each address of the name is a worker; looked up again and "
          "again."),
    Works("prefill-dns", Type::kAppended, "", Into<&R::prefill_dns>, "The same for prefill servers."),
    Works("decode-dns", Type::kAppended, "", Into<&R::decode_dns>, "The same for decode servers."),
    Works("dns-interval-secs", Type::kFloat, "10", Into<&R::dns_interval_s>, "Seconds between two look-ups.")
        .Range(0.1, 86400),
    Works("kv-transfer-mode", Type::kString, "auto", Into<&R::kv_transfer_mode>,
          "Pairs: pull asks decode when prefill has ended; push asks both at once, and answers 503 where a "
          "pair cannot; auto pushes where both say that they can.")
        .Choices("auto,pull,push"),
    Works("prefill-threshold", Type::kInt, "0", Into<&R::prefill_threshold>,
          "Pairs: prompts of which decode has to compute fewer tokens than this go to decode alone. What it "
          "holds is known as cache_aware knows it; without --tokenizer four bytes are a token.")
        .Range(0),
    Works("worker-startup-check-interval", Type::kFloat, "1", Into<&R::worker_startup_check_interval_s>,
          "Seconds between probes of a worker that has never been healthy.")
        .Range(0.01, 86400),
    NoEffect("worker-startup-timeout-secs", Type::kInt, "600",
             "Nothing waits for workers: each is taken in when it answers its probe."),
    NotBuilt("service-discovery", Type::kTrue, "false", kNoKubernetes),
    NotBuilt("selector", Type::kStrings, "", kNoKubernetes),
    NotBuilt("prefill-selector", Type::kStrings, "", kNoKubernetes),
    NotBuilt("decode-selector", Type::kStrings, "", kNoKubernetes),
    NotBuilt("service-discovery-port", Type::kInt, "80", kNoKubernetes),
    NotBuilt("service-discovery-namespace", Type::kString, "", kNoKubernetes),
    NotBuilt("vllm-discovery-address", Type::kString, "",
             "Workers do not register themselves; name them by flags, --worker-file or --worker-dns."),
    NotBuilt("kv-connector", Type::kString, "nixl",
             "Pairs hand KV over as NixlConnector or P2pNcclConnector does.")
        .Choices("nixl,mooncake,moriio"),
};

constexpr Setting kPolicy[] = {
    Works("policy", Type::kString, "cache_aware", Into<&R::policy>, "Which worker gets a request.")
        .Choices(kPolicies),
    Works("prefill-policy", Type::kString, "", Into<&R::prefill_policy>, "For prefill; --policy if unset.")
        .Choices(kPolicies),
    Works("decode-policy", Type::kString, "", Into<&R::decode_policy>, "For decode; --policy if unset.")
        .Choices(kPolicies),
    Works("tokenizer", Type::kString, "", Into<&R::tokenizer>,
          "cache_aware: the workers' model (a folder, or a name in the local hub cache), to count its tokens "
          "and follow what each worker says to hold of a prompt; unset: by the text that was sent there.")
        .Alias("tokenizer-path"),
    Works("chat-template", Type::kString, "", Into<&R::chat_template>,
          "With --tokenizer: the workers' --chat-template, a file or the template itself."),
    Works("cache-threshold", Type::kFloat, "0.3", Into<&R::cache_threshold>,
          "cache_aware: share of the prompt that a worker must have seen to be preferred.")
        .Range(0, 1),
    Works("balance-abs-threshold", Type::kInt, "64", Into<&R::balance_abs_threshold>,
          "cache_aware: the least loaded is taken where loads differ by more requests than this, and by more "
          "than the "
          "factor of --balance-rel-threshold.")
        .Range(0),
    Works("balance-rel-threshold", Type::kFloat, "1.5", Into<&R::balance_rel_threshold>,
          "cache_aware: see --balance-abs-threshold.")
        .Range(1),
    Works("max-tree-size", Type::kInt, "16777216", Into<&R::max_tree_size>,
          "cache_aware: bytes of prompts remembered for each worker; about as many bytes of memory.")
        .Range(64),
    NoEffect("eviction-interval-secs", Type::kInt, "120",
             "What was used longest ago goes as soon as --max-tree-size is reached."),
};

constexpr Setting kTrust[] = {
    Works("retry-max-retries", Type::kInt, "5", Into<&R::retry_max_retries>,
          "Attempts of a request in all, as in vLLM's router; only before the first byte of an answer.")
        .Alias("max-generate-attempts")
        .Range(1, 100),
    Works("retry-initial-backoff-ms", Type::kFloat, "50", Into<&R::retry_initial_backoff_ms>,
          "Wait once all workers have been tried; before that the next is asked at once.")
        .Range(0, 1e7),
    Works("retry-max-backoff-ms", Type::kFloat, "30000", Into<&R::retry_max_backoff_ms>, "Longest wait.")
        .Range(0, 1e7),
    Works("retry-backoff-multiplier", Type::kFloat, "1.5", Into<&R::retry_backoff_multiplier>,
          "Growth of the wait with each attempt.")
        .Range(1, 100),
    Works("retry-jitter-factor", Type::kFloat, "0.2", Into<&R::retry_jitter_factor>,
          "A wait is drawn from 1 - x to 1 + x of it.")
        .Range(0, 1),
    Works("disable-retries", Type::kTrue, "false", Into<&R::disable_retries>, "One attempt a request."),
    Works("health-check-endpoint", Type::kString, "/health", Into<&R::health_check_endpoint>,
          "Path of the probe; 2xx is healthy."),
    Works("health-check-interval-secs", Type::kFloat, "5", Into<&R::health_check_interval_s>,
          "Seconds between probes; a lost connection is probed at once.")
        .Alias("health-check-interval")
        .Range(0.01, 86400),
    Works("health-check-timeout-secs", Type::kFloat, "5", Into<&R::health_check_timeout_s>,
          "Seconds that a probe may take.")
        .Alias("health-check-timeout")
        .Range(0.01, 3600),
    Works("health-failure-threshold", Type::kInt, "3", Into<&R::health_failure_threshold>,
          "Failures in a row that make a worker unhealthy: probes and lost connections.")
        .Alias("health-check-failure-threshold")
        .Range(1),
    Works("health-success-threshold", Type::kInt, "2", Into<&R::health_success_threshold>,
          "Probes in a row that bring it back; the first time one is enough.")
        .Range(1),
    Works("cb-failure-threshold", Type::kInt, "10", Into<&R::cb_failure_threshold>,
          "Circuit breaker: failed requests in a row after which a worker gets none.")
        .Range(1),
    Works("cb-success-threshold", Type::kInt, "3", Into<&R::cb_success_threshold>,
          "Trials in a row that must work before it gets all again.")
        .Range(1),
    Works("cb-timeout-duration-secs", Type::kFloat, "60", Into<&R::cb_timeout_s>,
          "Seconds until the first trial.")
        .Range(0.01, 86400),
    Works("cb-window-duration-secs", Type::kFloat, "120", Into<&R::cb_window_s>,
          "Failures longer ago do not count.")
        .Range(0.01, 86400),
    Works("disable-circuit-breaker", Type::kTrue, "false", Into<&R::disable_circuit_breaker>,
          "Probes alone decide."),
};

constexpr Setting kServing[] = {
    Works("host", Type::kString, "127.0.0.1", Into<&R::host>, "Address to listen on."),
    Works("port", Type::kInt, "30000", Into<&R::port>, "Port to listen on; 0 takes any free one.")
        .Range(0, 65535),
    Works("threads", Type::kInt, "1", Into<&R::threads>, "Threads that pass bytes on.").Range(1, 256),
    Works(
        "api-key", Type::kString, "", Into<&R::api_key>,
        "Sent to workers with requests that bring no Authorization, and with probes; VLLM_API_KEY if unset."),
    Works("request-timeout-secs", Type::kFloat, "1800", Into<&R::request_timeout_s>,
          "Seconds that a request may take in all.")
        .Alias("timeout")
        .Range(0.01, 1e7),
    Works("max-payload-size", Type::kInt, "67108864", Into<&R::max_payload_size>,
          "Bytes of a request's body.")
        .Range(1, 1LL << 32),
    Works("max-concurrent-requests", Type::kInt, "32768", Into<&R::max_concurrent_requests>,
          "Requests at once; more are answered 429.")
        .Range(1),
    Works("request-id-headers", Type::kStrings, "", Into<&R::request_id_headers>,
          "Headers in which a request's id is looked for; X-Request-Id if unset."),
    Works("shutdown-timeout", Type::kInt, "30", Into<&R::shutdown_timeout_s>,
          "Seconds that running requests may go on after SIGTERM.")
        .Range(0, 86400),
    Works("prometheus-port", Type::kInt, "", Into<&R::prometheus_port>,
          "A port for the metrics alone; they are at /metrics of --port in any case.")
        .Range(0, 65535),
    Works("prometheus-host", Type::kString, "127.0.0.1", Into<&R::prometheus_host>, "Address of that port."),
    Works("log-level", Type::kString, "info", Into<&R::log_level>, "What is logged.")
        .Choices("trace,debug,info,warning,error,critical,off"),
    NoEffect("log-dir", Type::kString, "", "Log lines go to standard error."),
    NotBuilt("queue-size", Type::kInt, "100",
             "Requests past --max-concurrent-requests are refused; workers queue."),
    NoEffect("queue-timeout-secs", Type::kInt, "60", "There is no queue here; workers queue."),
    NotBuilt("rate-limit-tokens-per-second", Type::kInt, "",
             "Rates are not limited, but see --max-concurrent-requests."),
    NotBuilt("cors-allowed-origins", Type::kStrings, "", "The router answers no browsers of other origins."),
    NotBuilt("enable-igw", Type::kTrue, "false", "One router is for one model."),
    NoEffect("mini-lb", Type::kTrue, "false", "There is one router, and it is this one."),
};

}  // namespace

std::vector<Group> RouterGroups() {
  return {{"Workers", "Who answers", kWorkers},
          {"Policy", "Who gets which request", kPolicy},
          {"Trust", "Retries, health checks, circuit breaker", kTrust},
          {"Serving", "The router's own server", kServing}};
}

}  // namespace cadre::config
