#include "config/validate.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "config/launch.h"
#include "config/value.h"

namespace cadre::config {
namespace {

constexpr auto kBad = Code::kInvalidArgument;

/// At most one way to spread requests over DP ranks.
Status CheckBalancing(const ParallelOptions& p) {
  const bool external = p.data_parallel_external_lb || p.data_parallel_rank.has_value();
  const bool hybrid = p.data_parallel_hybrid_lb || (p.data_parallel_start_rank && !p.headless);
  if (p.data_parallel_multi_port_external_lb + external + hybrid > 1) {
    return Fail(
        kBad,
        "Cannot use more than one data parallel load balancing mode. Choose one of: "
        "--data-parallel-multi-port-external-lb, --data-parallel-external-lb (or --data-parallel-rank), "
        "--data-parallel-hybrid-lb (or --data-parallel-start-rank).");
  }
  if (p.data_parallel_hybrid_lb && p.headless) {
    return FailParam(kBad, "--data-parallel-hybrid-lb",
                     "data_parallel_hybrid_lb is not applicable in headless mode");
  }
  if (p.data_parallel_hybrid_lb && !p.data_parallel_size_local) {
    return FailParam(kBad, "--data-parallel-hybrid-lb",
                     "data_parallel_size_local must be set to use data_parallel_hybrid_lb.");
  }
  if (p.data_parallel_external_lb && p.data_parallel_size <= 1) {
    return FailParam(kBad, "--data-parallel-external-lb",
                     "data_parallel_external_lb can only be set when data_parallel_size > 1");
  }
  return {};
}

Status CheckDataParallel(const ParallelOptions& p) {
  const int local = p.data_parallel_size_local.value_or(p.data_parallel_size);
  if (local > p.data_parallel_size) {
    return FailParam(kBad, "--data-parallel-size-local",
                     "data_parallel_size_local ({}) must be <= data_parallel_size ({})", local,
                     p.data_parallel_size);
  }
  if (p.data_parallel_rank) {
    if (p.data_parallel_size_local.value_or(1) != 1) {
      return FailParam(kBad, "--data-parallel-size-local",
                       "data_parallel_size_local must be 1 when data_parallel_rank is set");
    }
    if (*p.data_parallel_rank >= p.data_parallel_size) {
      return FailParam(kBad, "--data-parallel-rank", "data_parallel_rank ({}) must be in the range [0, {})",
                       *p.data_parallel_rank, p.data_parallel_size);
    }
  }
  if (p.data_parallel_start_rank && *p.data_parallel_start_rank >= p.data_parallel_size) {
    return FailParam(kBad, "--data-parallel-start-rank",
                     "data_parallel_start_rank ({}) must be in the range [0, {})",
                     *p.data_parallel_start_rank, p.data_parallel_size);
  }
  if (p.api_server_count == 0 && !p.headless && p.node_rank == 0) {
    return FailParam(
        kBad, "--api-server-count",
        "--api-server-count 0: this node would answer nobody; a node that only computes is --headless");
  }
  if (p.headless) {
    if (p.api_server_count.value_or(0) > 0) {
      return FailParam(kBad, "--api-server-count",
                       "--api-server-count={} cannot be used with --headless (no API servers are started in "
                       "headless mode).",
                       *p.api_server_count);
    }
    if (local == 0) {
      return FailParam(kBad, "--data-parallel-size-local",
                       "data_parallel_size_local must be > 0 in headless mode");
    }
  }
  return CheckBalancing(p);
}

// Sizes that would only show as memory running out.
Status CheckEplbSizes(const EplbOptions& eplb) {
  constexpr int64_t kMaxRedundant = 1023;  // as vLLM
  constexpr int64_t kMaxWindow = 1 << 20, kMaxSteps = std::numeric_limits<int32_t>::max();
  if (eplb.num_redundant_experts > kMaxRedundant) {
    return FailParam(kBad, "--eplb-config.num_redundant_experts",
                     "num_redundant_experts ({}) must be at most {}", eplb.num_redundant_experts,
                     kMaxRedundant);
  }
  if (eplb.window_size > kMaxWindow) {
    return FailParam(kBad, "--eplb-config.window_size", "window_size ({}) must be at most {} steps",
                     eplb.window_size, kMaxWindow);
  }
  if (std::max(eplb.step_interval, eplb.log_balancedness_interval) > kMaxSteps) {
    return FailParam(kBad, "--eplb-config", "step_interval and log_balancedness_interval must be at most {}",
                     kMaxSteps);
  }
  return {};
}

Status CheckExperts(const ParallelOptions& p) {
  CADRE_TRY(CheckEplbSizes(p.eplb));
  if (!p.enable_eplb) {
    if (p.eplb.num_redundant_experts != 0) {
      return FailParam(
          kBad, "--eplb-config",
          "num_redundant_experts is set to {} but EPLB is not enabled. Either enable EPLB or unset "
          "num_redundant_experts.",
          p.eplb.num_redundant_experts);
    }
    for (const auto& [file, flag] :
         {std::pair(&p.eplb.init_file, "--eplb-init"), {&p.eplb.record_file, "--eplb-record"}}) {
      if (file->has_value()) return FailParam(kBad, flag, "{} wants --enable-eplb", flag);
    }
    if (p.enable_elastic_ep) {
      return FailParam(kBad, "--enable-elastic-ep", "Elastic EP is only supported with enable_eplb=True.");
    }
    return {};
  }
  if (!p.enable_expert_parallel) {
    return FailParam(kBad, "--enable-eplb", "enable_expert_parallel must be True to use EPLB.");
  }
  if (const auto& by = p.eplb.communicator; p.eplb.use_async && (by == "torch_nccl" || by == "pynccl")) {
    return FailParam(
        kBad, "--eplb-config.communicator",
        "{} communicator is incompatible with async EPLB due to NCCL multi-stream conflicts. Use "
        "'torch_gloo' or 'nixl' instead, or leave communicator unset for automatic selection.",
        *by);
  }
  return {};
}

Status CheckExchange(const ParallelOptions& p) {
  if (!p.all2all_fp8_dispatch) return {};
  for (const std::string& name : {p.prefill_backend(), p.decode_backend()}) {
    if (name == "deepep_low_latency" || name == "nixl_ep") return {};
  }
  return FailParam(kBad, "--all2all-fp8-dispatch",
                   "--all2all-fp8-dispatch wants --all2all-backend deepep_low_latency, for all steps or by "
                   "--prefill-all2all-backend or --decode-all2all-backend; got {}",
                   p.prefill_backend());
}

Status CheckParallel(const ParallelOptions& p) {
  constexpr int64_t kMaxRanks = 65536;
  if (int64_t{p.tensor_parallel_size} * p.data_parallel_size > kMaxRanks) {
    return FailParam(kBad, "--data-parallel-size",
                     "tensor_parallel_size ({}) x data_parallel_size ({}) is more than {} ranks",
                     p.tensor_parallel_size, p.data_parallel_size, kMaxRanks);
  }
  if (p.prefill_context_parallel_size > 1 && p.data_parallel_size > 1) {
    return FailParam(kBad, "--prefill-context-parallel-size", "PCP does not support data parallelism yet.");
  }
  if (p.tensor_parallel_size % p.decode_context_parallel_size != 0) {
    return FailParam(kBad, "--decode-context-parallel-size", "tp_size={} must be divisible by dcp_size={}.",
                     p.tensor_parallel_size, p.decode_context_parallel_size);
  }
  if (p.enable_fault_tolerance && p.api_server_count.value_or(1) != 1) {
    return FailParam(
        kBad, "--enable-fault-tolerance",
        "Fault tolerance requires a single API server process (--api-server-count=1), but got {}.",
        *p.api_server_count);
  }
  CADRE_TRY(CheckDataParallel(p));
  CADRE_TRY(CheckExperts(p));
  CADRE_TRY(CheckExchange(p));
  CADRE_TRY(ResolveLaunch(p));
  return {};
}

Status CheckScheduler(const SchedulerOptions& s, const ModelOptions& model) {
  if (s.max_num_batched_tokens < s.max_num_seqs) {
    return FailParam(kBad, "--max-num-batched-tokens",
                     "max_num_batched_tokens ({}) must be greater than or equal to max_num_seqs ({}).",
                     s.max_num_batched_tokens, s.max_num_seqs);
  }
  const int64_t length = model.max_model_len.value_or(0);
  if (!s.enable_chunked_prefill && length > s.max_num_batched_tokens) {
    return FailParam(
        kBad, "--max-num-batched-tokens",
        "max_num_batched_tokens ({}) is smaller than max_model_len ({}). This effectively limits the maximum "
        "sequence length to max_num_batched_tokens and makes the server reject longer sequences. Please "
        "increase max_num_batched_tokens or decrease max_model_len.",
        s.max_num_batched_tokens, length);
  }
  return {};
}

Result<std::vector<int>> ParseCpuList(std::string_view list) {
  constexpr int64_t kMaxCpu = 65535;
  std::vector<int> cpus;
  for (std::string_view part : SplitComma(list)) {
    const std::string text = Trim(part);
    const size_t dash = text.find('-', 1);
    CADRE_ASSIGN(const int64_t first, ParseInt(std::string_view(text).substr(0, dash)));
    int64_t last = first;
    if (dash != text.npos) {
      CADRE_ASSIGN(last, ParseInt(std::string_view(text).substr(dash + 1)));
    }
    if (first < 0 || last < first || last > kMaxCpu) return Fail(kBad, "'{}' is no range of CPUs", text);
    for (int64_t cpu = first; cpu <= last; ++cpu) {
      if (std::find(cpus.begin(), cpus.end(), cpu) != cpus.end())
        return Fail(kBad, "CPU {} is named twice", cpu);
      cpus.push_back(static_cast<int>(cpu));
    }
  }
  if (cpus.empty()) return Fail(kBad, "a rank has no CPU");
  return cpus;
}

}  // namespace

Status ParseBinding(std::string_view text, CpuOptions& cpu) {
  constexpr std::string_view kName = "VLLM_CPU_OMP_THREADS_BIND";
  const std::string trimmed = Trim(text);
  if (trimmed == "auto" || trimmed == "nobind") {
    cpu.bind = trimmed == "auto" ? CpuOptions::Bind::kAuto : CpuOptions::Bind::kNobind;
    return {};
  }
  if (trimmed.size() > 65536) return FailParam(kBad, std::string(kName), "{} is too long", kName);
  cpu.bind = CpuOptions::Bind::kList;
  std::string_view rest = trimmed;
  while (true) {
    const size_t bar = rest.find('|');
    auto cpus = ParseCpuList(rest.substr(0, bar));
    if (!cpus) {
      return FailParam(kBad, std::string(kName),
                       "{} wants auto, nobind, or CPU lists such as 0-15|16-31, not '{}': {}", kName,
                       trimmed.substr(0, 120), cpus.error().message);
    }
    cpu.cpus_of_rank.push_back(*std::move(cpus));
    if (bar == rest.npos) return {};
    rest.remove_prefix(bar + 1);
  }
}

Status CheckEngine(const EngineOptions& engine) {
  if (engine.model.max_model_len == 0) {
    return FailParam(kBad, "--max-model-len", "--max-model-len must be at least 1, or auto");
  }
  if (engine.cache.gpu_memory_utilization <= 0) {
    return FailParam(kBad, "--gpu-memory-utilization",
                     "--gpu-memory-utilization must be above 0 and at most 1");
  }
  CADRE_TRY(CheckScheduler(engine.scheduler, engine.model));
  CADRE_TRY(CheckParallel(engine.parallel));
  const CpuOptions& cpu = engine.cpu;
  const auto ranks = static_cast<size_t>(engine.parallel.expert_parallel_size());
  if (cpu.bind == CpuOptions::Bind::kList && cpu.cpus_of_rank.size() < ranks) {
    return FailParam(
        kBad, "VLLM_CPU_OMP_THREADS_BIND",
        "VLLM_CPU_OMP_THREADS_BIND lists CPUs for {} ranks, but {} run on this host; separate them with |",
        cpu.cpus_of_rank.size(), ranks);
  }
  return {};
}

Status CheckHttp(const HttpOptions& http) {
  if (http.ssl_certfile.has_value() != http.ssl_keyfile.has_value()) {
    return FailParam(kBad, http.ssl_certfile ? "--ssl-keyfile" : "--ssl-certfile",
                     "TLS wants both --ssl-certfile and --ssl-keyfile");
  }
  if (http.ssl_cert_reqs > 0 && !http.ssl_certfile) {
    return FailParam(kBad, "--ssl-cert-reqs",
                     "--ssl-cert-reqs checks clients of TLS; it wants --ssl-certfile and --ssl-keyfile");
  }
  if (http.ssl_cert_reqs > 0 && !http.ssl_ca_certs) {
    return FailParam(kBad, "--ssl-ca-certs", "--ssl-cert-reqs {} wants --ssl-ca-certs to check against",
                     http.ssl_cert_reqs);
  }
  for (const std::string& key : http.api_keys) {
    if (key.empty())
      return FailParam(kBad, "--api-key", "--api-key must not be empty; is a variable in the command unset?");
  }
  return {};
}

}  // namespace cadre::config
