#pragma once
// What a person may choose, as plain values. The tables in settings_*.cc say how each field is called on the
// command line, in a file and in the environment; deploy hands the fields to the rooms they concern. Nothing
// here has behaviour.
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"

namespace cadre::config {

/// `--max-model-len auto` (or -1): the longest context whose KV cache fits.
inline constexpr int64_t kAutoModelLen = -1;

/// Which model, read how.
struct ModelOptions {
  std::string model;                            ///< a folder, or a hub name looked up in `hub_cache`
  std::vector<std::string> served_model_names;  ///< empty: the model as it was written
  std::optional<std::string> tokenizer;         ///< empty: the model's own
  std::optional<std::string> revision;
  std::optional<std::string> tokenizer_revision;
  std::string hub_cache;  ///< folder of models--org--name folders; "" when the environment names no home
  std::string hub_cache_source;  ///< what set it, for messages: "HF_HOME", "--download-dir", ...
  std::string load_format = "auto";
  std::string dtype = "auto";  ///< auto, bfloat16, float32 (float is written float32)
  std::string quantization;    ///< "": as the checkpoint is; fp8, compressed-tensors
  int64_t seed = 0;
  std::optional<int64_t> max_model_len;   ///< tokens; empty: the model's own; or kAutoModelLen
  bool allow_long_max_model_len = false;  ///< VLLM_ALLOW_LONG_MAX_MODEL_LEN: beyond what the model says
  bool skip_tokenizer_init = false;
  Json hf_overrides;                           ///< object laid over config.json; null: none
  std::string generation_config = "auto";      ///< auto: the model's folder; vllm: none; else a folder
  Json override_generation_config;             ///< object laid over generation_config.json; null: none
  int64_t max_logprobs = 20;                   ///< -1: no limit
  std::string logprobs_mode = "raw_logprobs";  ///< or processed_logprobs, raw_logits, processed_logits
  bool return_routed_experts = false;          ///< answers tell which experts each token had
  bool weight_update_copy = false;             ///< keep the weights a second time while they are replaced
  bool show_progress = true;
  std::string routing_simulation;  ///< VLLM_MOE_ROUTING_SIMULATION_STRATEGY; "": the router chooses

  friend bool operator==(const ModelOptions&, const ModelOptions&) = default;
};

/// The KV cache and its memory.
struct CacheOptions {
  int block_size = 16;                   ///< tokens a block
  double gpu_memory_utilization = 0.92;  ///< share of the host's memory that all local ranks use together
  std::optional<int64_t> kv_cache_memory_bytes;  ///< per rank; set by flag or VLLM_CPU_KVCACHE_SPACE
  std::string kv_cache_dtype = "auto";
  std::optional<int64_t> num_gpu_blocks_override;
  bool enable_prefix_caching = true;

  friend bool operator==(const CacheOptions&, const CacheOptions&) = default;
};

/// What runs in one step. All limits are per DP rank.
struct SchedulerOptions {
  int64_t max_num_seqs = 128;
  int64_t max_num_batched_tokens = 2048;
  std::optional<int64_t> max_num_queued_reqs;  ///< waiting requests before 429; empty: the server's own limit
  bool enable_chunked_prefill = true;
  std::string scheduling_policy = "fcfs";    ///< or "priority"
  int64_t long_prefill_token_threshold = 0;  ///< prompt tokens of one request a step; 0: no limit
  int64_t stream_interval = 1;               ///< tokens per event of a stream

  friend bool operator==(const SchedulerOptions&, const SchedulerOptions&) = default;
};

/// `--eplb-config`.
struct EplbOptions {
  int64_t window_size = 1000;
  int64_t step_interval = 3000;
  int64_t num_redundant_experts = 0;
  bool log_balancedness = false;
  int64_t log_balancedness_interval = 1;
  bool use_async = true;
  std::string policy = "default";
  std::string replica_routing = "hash";    ///< or "nearest": copies in the own host first
  std::optional<int64_t> num_spare_slots;  ///< a rank; empty: as many as a layer has slots there
  std::optional<std::string> communicator;
  std::optional<std::string> record_file, init_file;  ///< --eplb-record, --eplb-init

  friend bool operator==(const EplbOptions&, const EplbOptions&) = default;
};

/// How ranks are laid out.
struct ParallelOptions {
  int tensor_parallel_size = 1;
  int data_parallel_size = 1;
  bool enable_expert_parallel = false;
  std::string all2all_backend = "allgather_reducescatter";
  std::string all2all_backend_source = "default";                              ///< what set it, for the log
  std::optional<std::string> prefill_all2all_backend, decode_all2all_backend;  ///< unset: all2all_backend
  bool all2all_fp8_dispatch = false;
  std::string expert_placement_strategy = "linear";
  bool enable_eplb = false;
  EplbOptions eplb;
  std::optional<int64_t>
      distributed_timeout_s;             ///< deadline of a wait between ranks; empty: the fabric's own
  int64_t engine_ready_timeout_s = 600;  ///< VLLM_ENGINE_READY_TIMEOUT_S

  // Not built; kept so that their rules can be checked.
  int pipeline_parallel_size = 1;
  int prefill_context_parallel_size = 1;
  int decode_context_parallel_size = 1;

  // Over several nodes, or behind another balancer: launch.h makes one answer of them.
  std::optional<int> data_parallel_size_local;
  std::optional<int> data_parallel_rank;
  std::optional<int> data_parallel_start_rank;
  std::optional<std::string> data_parallel_address;
  std::string data_parallel_address_source = "--data-parallel-address";
  std::optional<int> data_parallel_rpc_port;
  bool data_parallel_hybrid_lb = false;
  bool data_parallel_external_lb = false;
  bool data_parallel_multi_port_external_lb = false;
  bool headless = false;
  int nnodes = 1;
  int node_rank = 0;
  std::string master_addr = "127.0.0.1";
  int master_port = 29501;
  std::string master_source = "--master-addr";
  std::string host_ip;  ///< VLLM_HOST_IP: the address at which other nodes reach this one
  std::string nccl_ifname, gloo_ifname, tp_ifname;  ///< *_SOCKET_IFNAME: the interface to use, in this order
  std::optional<int> api_server_count;
  std::string fabric_transport = "auto";  ///< between nodes: "tcp", "ucx", or the best that all have
  int fabric_connections = 1;             ///< of a TCP link, for each address
  bool enable_elastic_ep = false;
  bool enable_fault_tolerance = false;

  const std::string& prefill_backend() const {
    return prefill_all2all_backend ? *prefill_all2all_backend : all2all_backend;
  }
  const std::string& decode_backend() const {
    return decode_all2all_backend ? *decode_all2all_backend : all2all_backend;
  }
  int expert_parallel_size() const { return tensor_parallel_size * data_parallel_size; }
  friend bool operator==(const ParallelOptions&, const ParallelOptions&) = default;
};

/// `--kv-transfer-config`: blocks of the KV cache go to and come from other instances.
struct KvTransferOptions {
  std::string connector;  ///< NixlConnector or P2pNcclConnector; "": no hand-off
  std::string role;       ///< kv_producer, kv_consumer or kv_both
  std::optional<std::string> engine_id;
  std::string ip = "127.0.0.1";                   ///< kv_ip: where a P2pNcclConnector is reached
  int port = 14579;                               ///< kv_port
  std::string load_failure_policy = "recompute";  ///< or "fail"
  Json extra;                                     ///< kv_connector_extra_config: object or null
  double lease_s = 30;                            ///< kv_lease_duration: how long blocks wait to be fetched
  double abort_timeout_s = 480;  ///< VLLM_NIXL_ABORT_REQUEST_TIMEOUT: longest fetch while the source computes
  double max_bytes_per_s = 0;    ///< sent to other hosts, of each rank; 0: no limit
  bool bidirectional = false;    ///< decode holds what it has computed for the next turn
  std::string side_channel_host;  ///< VLLM_NIXL_SIDE_CHANNEL_HOST; "": an address that others can reach
  int side_channel_port = 5600;   ///< VLLM_NIXL_SIDE_CHANNEL_PORT; + rank

  bool enabled() const { return !connector.empty(); }
  bool by_request_id() const { return connector == "P2pNcclConnector"; }
  friend bool operator==(const KvTransferOptions&, const KvTransferOptions&) = default;
};

/// An entry of --lora-modules.
struct LoraModule {
  std::string name, path;
  std::string base;  ///< base_model_name; "": the model

  friend bool operator==(const LoraModule&, const LoraModule&) = default;
};

/// LoRA adapters.
struct LoraOptions {
  bool enabled = false;
  std::vector<std::string> module_words;  ///< of --lora-modules, as given
  std::vector<LoraModule> modules;        ///< the same, read
  int64_t max_loras = 1;
  std::optional<int64_t> max_cpu_loras;
  int64_t max_rank = 16;
  std::string dtype = "auto";

  /// That may be loaded at once.
  int64_t max_adapters() const {
    constexpr int64_t kFewest = 8;
    return max_cpu_loras.value_or(max_loras > kFewest ? max_loras : kFewest);
  }
  /// That memory is planned for.
  int64_t num_planned() const {
    const auto named = static_cast<int64_t>(modules.size());
    return named > max_loras ? named : max_loras;
  }
  friend bool operator==(const LoraOptions&, const LoraOptions&) = default;
};

/// Threads and instruction set.
struct CpuOptions {
  enum class Bind {
    kAuto,    ///< one thread a physical core that the process may use, pinned
    kNobind,  ///< threads are not pinned
    kList,    ///< `cpus_of_rank`
  };
  std::optional<int> threads;  ///< per rank; empty: from the binding
  Bind bind = Bind::kAuto;
  std::vector<std::vector<int>> cpus_of_rank;  ///< for kList: the CPUs of each local rank, in its order
  int num_reserved_cpus = 0;                   ///< VLLM_CPU_NUM_OF_RESERVED_CPU: left free by kAuto
  std::string isa = "auto";                    ///< CADRE_ISA

  friend bool operator==(const CpuOptions&, const CpuOptions&) = default;
};

/// All that an engine is made from; every command that loads a model has one.
struct EngineOptions {
  ModelOptions model;
  CacheOptions cache;
  SchedulerOptions scheduler;
  ParallelOptions parallel;
  KvTransferOptions kv_transfer;
  LoraOptions lora;
  CpuOptions cpu;
  std::string log_level = "info";
  bool log_color = true;

  friend bool operator==(const EngineOptions&, const EngineOptions&) = default;
};

/// The HTTP door.
struct HttpOptions {
  std::optional<std::string> host;  ///< empty: all interfaces
  int port = 8000;                  ///< 0: any free port
  std::optional<std::string> uds;   ///< a Unix socket's path; then host and port are not used
  std::vector<std::string> api_keys;
  std::optional<std::string> ssl_keyfile, ssl_certfile, ssl_ca_certs, ssl_ciphers;
  int ssl_cert_reqs = 0;  ///< client certificates: 0 none, 1 optional, 2 required
  bool allow_credentials = false;
  std::vector<std::string> allowed_origins;
  std::vector<std::string> allowed_methods{"*"};
  std::vector<std::string> allowed_headers{"*"};
  bool enable_request_id_headers = false;
  int64_t keep_alive_s = 5;  ///< VLLM_HTTP_TIMEOUT_KEEP_ALIVE
  std::optional<int64_t>
      shutdown_timeout_s;  ///< running requests may finish for so long after SIGTERM; empty: 30

  friend bool operator==(const HttpOptions&, const HttpOptions&) = default;
};

/// What the OpenAI API does with a request.
struct ApiOptions {
  std::optional<std::string> chat_template;  ///< a file's path or the template itself
  std::string chat_template_content_format = "auto";
  bool trust_request_chat_template = false;
  Json default_chat_template_kwargs;  ///< object; null: none
  std::string response_role = "assistant";
  bool return_tokens_as_token_ids = false;
  bool exclude_tools_when_tool_choice_none = false;
  bool enable_force_include_usage = false;
  bool enable_log_requests = false;
  bool dev_mode = false;  ///< VLLM_SERVER_DEV_MODE
  bool log_stats = true;
  double log_stats_interval_s = 10;  ///< VLLM_LOG_STATS_INTERVAL
  bool allow_runtime_lora = false;   ///< VLLM_ALLOW_RUNTIME_LORA_UPDATING

  friend bool operator==(const ApiOptions&, const ApiOptions&) = default;
};

/// `cadre serve`.
struct ServeOptions {
  EngineOptions engine;
  HttpOptions http;
  ApiOptions api;
  bool fail_on_environ_validation = false;

  friend bool operator==(const ServeOptions&, const ServeOptions&) = default;
};

}  // namespace cadre::config
