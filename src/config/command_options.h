#pragma once
// Options of the commands beside `cadre serve`. Names and defaults of the bench commands are those of `vllm
// bench`.
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "config/serve_options.h"

namespace cadre::config {

/// How tokens are drawn, for the commands that ask a model themselves. Empty: the model's generation config
/// decides.
struct SamplingOptions {
  std::optional<double> temperature, top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty;
  std::optional<int64_t> top_k;

  friend bool operator==(const SamplingOptions&, const SamplingOptions&) = default;
};

/// `cadre generate`.
struct GenerateOptions {
  EngineOptions engine;
  SamplingOptions sampling;
  std::optional<std::string> prompt;  ///< empty: an interactive chat
  std::vector<int64_t> prompt_token_ids;
  bool raw = false;  ///< the prompt as it is, without the chat template
  std::optional<std::string> system;
  std::optional<std::string> chat_template;
  int64_t max_tokens = 256;
  std::vector<std::string> stop;
  bool ignore_eos = false;

  friend bool operator==(const GenerateOptions&, const GenerateOptions&) = default;
};

/// `cadre inspect`.
struct InspectOptions {
  EngineOptions engine;
  bool tensors = false;                  ///< list every tensor
  bool json = false;                     ///< print one JSON object
  std::optional<std::string> load;       ///< draw this load: a file or a server's URL
  std::optional<std::string> svg, html;  ///< where its pictures go

  friend bool operator==(const InspectOptions&, const InspectOptions&) = default;
};

/// `cadre bench latency`.
struct BenchLatencyOptions {
  EngineOptions engine;
  int64_t input_len = 32, output_len = 128, batch_size = 8, n = 1;
  int64_t num_iters_warmup = 10, num_iters = 30;
  bool disable_detokenize = false;
  std::optional<std::string> output_json;  ///< vLLM's result file
  std::optional<std::string> json;         ///< Cadre's result file

  friend bool operator==(const BenchLatencyOptions&, const BenchLatencyOptions&) = default;
};

/// `cadre bench a2a`.
struct BenchA2aOptions {
  int64_t ranks = 2, hidden = 7168, top_k = 8, experts = 256, num_iters = 300, repeats = 3;
  std::string backends =
      "allgather_reducescatter,naive,pplx,deepep_high_throughput,deepep_low_latency,flashinfer_all2allv,mori";
  std::string sizes = "1024,14336,131072,1048576,8388608";
  std::string rows = "1,8,32,128,1024";
  bool count_only = false;
  std::string hosts = "1,2,4,8,16,32,64";
  int64_t ranks_per_host = 8, layers = 58;
  std::string gloo_python = "python3";
  std::string log_level = "info";
  std::optional<std::string> json;

  friend bool operator==(const BenchA2aOptions&, const BenchA2aOptions&) = default;
};

/// `cadre demo`.
struct DemoOptions {
  int64_t nproc_per_node = 2, num_experts = 8, top_k = 2, num_tokens = 6, hidden_size = 128,
          intermediate_size = 256, seed = 0;
  bool force_cpu = false, python = false;
  std::optional<std::string> model, prompt;
  std::string hub_cache;  ///< for --model by hub name; as in ModelOptions
  std::string all2all_backend = "allgather_reducescatter";
  std::string placement = "linear";
  double timeout_s = 60;  ///< of a wait between ranks
  std::string log_level = "warning";
  std::optional<std::string> json;
  CpuOptions cpu;

  friend bool operator==(const DemoOptions&, const DemoOptions&) = default;
};

/// `cadre bench step`.
struct BenchStepOptions {
  EngineOptions engine;
  int64_t ranks = 2, input_len = 64, output_len = 24;
  int64_t num_iters_warmup = 1, num_iters = 3;
  std::string batches = "1,16,32";
  std::optional<std::string> json;

  friend bool operator==(const BenchStepOptions&, const BenchStepOptions&) = default;
};

/// `cadre doctor`.
struct DoctorOptions {
  ParallelOptions parallel;        ///< VLLM_HOST_IP and *_SOCKET_IFNAME alone
  std::vector<std::string> peers;  ///< HOST or HOST:PORT
  std::optional<int> listen;       ///< a port: answer other doctors instead
  std::string listen_address;      ///< empty: all interfaces
  std::optional<double> listen_seconds;
  double timeout_s = 5;
  std::string link = "all";
  bool measure = true;
  bool json = false;
  std::string log_level = "info";

  friend bool operator==(const DoctorOptions&, const DoctorOptions&) = default;
};

/// `cadre plan`.
struct PlanOptions {
  EngineOptions engine;
  int64_t hosts = 1;
  std::optional<int64_t> memory_per_host;  ///< bytes; empty: as much as this machine has
  std::optional<int> cores_per_host, ranks_per_host;
  std::string target = "throughput";   ///< or latency, prefill, decode
  std::optional<int64_t> concurrency;  ///< sequences of --max-model-len at once, over all hosts
  bool json = false;

  std::vector<std::string> given;      ///< names of the flags that were said, without dashes
  std::vector<std::string> passed_on;  ///< the words of those that the launch lines repeat as they are
  Json eplb_config;                    ///< as given; null: not given

  friend bool operator==(const PlanOptions&, const PlanOptions&) = default;
};

/// `cadre router`. Names and defaults are those of vLLM's router, but where its page says otherwise.
struct RouterOptions {
  std::string host = "127.0.0.1";
  int port = 30000;
  int64_t threads = 1;
  std::string api_key;  ///< empty: none
  std::string log_level = "info";
  int64_t shutdown_timeout_s = 30;
  std::optional<int> prometheus_port;
  std::string prometheus_host = "127.0.0.1";

  // Lists may hold several with commas between; SettleRouter takes them apart.
  std::vector<std::string> worker_urls, prefill, decode;
  std::vector<std::string> prefiller_hosts, prefiller_ports, decoder_hosts, decoder_ports;
  std::vector<std::string> prefill_kv_addrs, decode_kv_addrs;
  bool pairs = false;  ///< prefill and decode workers; --vllm-pd-disaggregation or any flag that names them
  int64_t intra_node_data_parallel_size = 1;
  std::string worker_file;
  std::vector<std::string> worker_dns, prefill_dns, decode_dns;
  double dns_interval_s = 10;

  std::string kv_transfer_mode = "auto";
  int64_t prefill_threshold = 0;
  std::optional<std::string> tokenizer;  ///< folder or name of the model that the workers serve
  std::string chat_template;             ///< as --chat-template of the workers
  std::string hub_cache;

  std::string policy = "cache_aware";
  std::optional<std::string> prefill_policy, decode_policy;  ///< as `policy` if unset
  double cache_threshold = 0.3, balance_rel_threshold = 1.5;
  int64_t balance_abs_threshold = 64, max_tree_size = 1 << 24;

  int64_t max_payload_size = 64 << 20, max_concurrent_requests = 32768;
  double request_timeout_s = 1800;
  std::vector<std::string> request_id_headers;  ///< empty: X-Request-Id

  int64_t retry_max_retries = 5;
  double retry_initial_backoff_ms = 50, retry_max_backoff_ms = 30000, retry_backoff_multiplier = 1.5,
         retry_jitter_factor = 0.2;
  bool disable_retries = false;

  std::string health_check_endpoint = "/health";
  double health_check_interval_s = 5, health_check_timeout_s = 5, worker_startup_check_interval_s = 1;
  int64_t health_failure_threshold = 3, health_success_threshold = 2;

  int64_t cb_failure_threshold = 10, cb_success_threshold = 3;
  double cb_timeout_s = 60, cb_window_s = 120;
  bool disable_circuit_breaker = false;

  friend bool operator==(const RouterOptions&, const RouterOptions&) = default;
};

/// Requests of random tokens; lengths are drawn from len * (1 +- range_ratio).
struct RandomDatasetOptions {
  int64_t input_len = 1024, output_len = 128, prefix_len = 0;
  double range_ratio = 0.0;

  friend bool operator==(const RandomDatasetOptions&, const RandomDatasetOptions&) = default;
};

/// `cadre bench throughput`.
struct BenchThroughputOptions {
  EngineOptions engine;
  RandomDatasetOptions random;
  std::optional<int64_t> input_len, output_len;  ///< win over random.*
  int64_t n = 1, num_prompts = 1000, num_warmups = 0;
  bool disable_detokenize = false;
  std::optional<std::string> output_json, json;

  friend bool operator==(const BenchThroughputOptions&, const BenchThroughputOptions&) = default;
};

/// `cadre bench eplb`.
struct BenchEplbOptions {
  BenchThroughputOptions throughput;
  double exponent = 1.0;  ///< of Zipf's law over the experts
  int64_t drift = 0, repeats = 1;
  std::string eplb = R"({"window_size":100,"step_interval":200,"num_redundant_experts":8})";

  friend bool operator==(const BenchEplbOptions&, const BenchEplbOptions&) = default;
};

/// `cadre bench serve`: load for a running server.
struct BenchServeOptions {
  std::string backend = "openai";  ///< openai, vllm: completions; openai-chat: chat completions
  std::optional<std::string> base_url;
  std::string host = "127.0.0.1";
  int port = 8000;
  std::string endpoint = "/v1/completions";
  std::vector<std::string> headers;  ///< KEY=VALUE
  bool insecure = false;             ///< do not check the server's certificate
  std::optional<std::string> model, served_model_name, tokenizer;
  bool skip_tokenizer_init = false;
  int64_t seed = 0;
  int64_t num_prompts = 1000, num_warmups = 0;
  RandomDatasetOptions random;
  std::optional<int64_t> input_len, output_len;                   ///< win over random.*
  double request_rate = std::numeric_limits<double>::infinity();  ///< requests a second
  double burstiness = 1.0;
  std::optional<int64_t> max_concurrency;
  bool no_stream = false;
  bool disable_tqdm = false;
  bool ignore_eos = false;
  std::optional<int64_t> logprobs;
  SamplingOptions sampling;
  Json extra_body;                ///< object; null: none
  std::string request_id_prefix;  ///< empty: bench-<random>-
  int64_t ready_check_timeout_s = 0;
  std::optional<std::string>
      percentile_metrics;                 ///< comma list of ttft, tpot, itl, e2el; empty: ttft,tpot,itl
  std::string metric_percentiles = "99";  ///< comma list
  std::vector<std::string> goodput;       ///< KEY:VALUE in ms
  bool save_result = false, save_detailed = false, append_result = false;
  std::vector<std::string> metadata;  ///< KEY=VALUE
  std::optional<std::string> label, result_dir, result_filename, json;
  std::optional<std::string> svg;

  double long_prompt_share = 0;  ///< of the requests; the others are chats of the lengths above
  int64_t long_input_len = 4096;
  std::optional<int64_t> long_output_len;  ///< the chats' if unset

  bool compare_pair = false;  ///< start one server, then a prefill and decode pair, and compare
  std::optional<int64_t> prefill_cores;
  std::string serve_args, prefill_args, decode_args, router_args;  ///< words with spaces between

  std::string hub_cache;  ///< for --tokenizer by hub name; as in ModelOptions
  std::string log_level = "info";

  friend bool operator==(const BenchServeOptions&, const BenchServeOptions&) = default;
};

}  // namespace cadre::config
