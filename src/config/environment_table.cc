// The environment variables that Cadre knows. Names without effect are listed under their reason.
#include <deque>

#include "config/environment.h"

namespace cadre::config {
namespace {

void KvSpace(const Targets& targets, const Json& value) {
  auto* cache = std::get<CacheOptions*>(targets);
  // --kv-cache-memory-bytes wins. 0 GiB is vLLM's "not set".
  if (!cache || value.is_null() || cache->kv_cache_memory_bytes || value.AsDouble() == 0) return;
  cache->kv_cache_memory_bytes = static_cast<int64_t>(value.AsDouble() * 0x1p30);
}

void Color(const Targets& targets, const Json& value) {
  if (auto* engine = std::get<EngineOptions*>(targets); engine && !value.is_null())
    engine->log_color = value.AsString() != "0";
}

constexpr Setting Default(std::string_view name, std::string_view flag, std::string_view help) {
  return Setting{.name = name, .text = help, .forward = flag};
}

constexpr std::string_view kHub = "Where hub names are looked up; see also --download-dir.";

constexpr Setting kRead[] = {
    Default("VLLM_API_KEY", "api-key", "A key that requests must bring."),
    Default("VLLM_LOGGING_LEVEL", "log-level", "What is logged."),
    Default("VLLM_ALL2ALL_BACKEND", "all2all-backend",
            "How tokens travel to their experts; vLLM up to 0.11."),
    Works("VLLM_LOGGING_COLOR", Type::kString, "auto", Color, "Colours in the log: auto, 1, or 0 for none.")
        .Choices("auto,0,1"),
    Works("VLLM_SERVER_DEV_MODE", Type::kBool, "false", Into<&ApiOptions::dev_mode>,
          "Open the routes for developers, such as /reset_prefix_cache."),
    Works("VLLM_ALLOW_RUNTIME_LORA_UPDATING", Type::kBool, "false", Into<&ApiOptions::allow_runtime_lora>,
          "Open /v1/load_lora_adapter and /v1/unload_lora_adapter, with --enable-lora."),
    Works("VLLM_LOG_STATS_INTERVAL", Type::kFloat, "10", Into<&ApiOptions::log_stats_interval_s>,
          "Seconds between two lines with statistics.")
        .Range(0.1, 1e6),
    Works("VLLM_HTTP_TIMEOUT_KEEP_ALIVE", Type::kInt, "5", Into<&HttpOptions::keep_alive_s>,
          "Seconds that an idle HTTP connection is kept.")
        .Range(1, 86400),
    Works("VLLM_ENGINE_READY_TIMEOUT_S", Type::kInt, "600", Into<&ParallelOptions::engine_ready_timeout_s>,
          "Seconds that all ranks may take to load and be ready.")
        .Range(1),
    Works("VLLM_ALLOW_LONG_MAX_MODEL_LEN", Type::kBool, "false",
          Into<&ModelOptions::allow_long_max_model_len>,
          "Let --max-model-len go beyond what the model says."),
    Works(
        "VLLM_NIXL_SIDE_CHANNEL_HOST", Type::kString, "", Into<&KvTransferOptions::side_channel_host>,
        "--kv-transfer-config: the address that other instances are told; default: one that they can reach."),
    Works("VLLM_NIXL_SIDE_CHANNEL_PORT", Type::kInt, "5600", Into<&KvTransferOptions::side_channel_port>,
          "The port there, + rank; the next free one where it is in use.")
        .Range(1, 65535),
    Works("VLLM_NIXL_ABORT_REQUEST_TIMEOUT", Type::kFloat, "480", Into<&KvTransferOptions::abort_timeout_s>,
          "Longest wait, in seconds, for blocks that prefill still computes.")
        .Range(0.1, 1e6),
    Works("VLLM_CPU_KVCACHE_SPACE", Type::kFloat, "0", KvSpace,
          "KV cache of each rank in GiB, if --kv-cache-memory-bytes is unset; 0: sized by "
          "--gpu-memory-utilization.")
        .Range(0, 1e9),
    // Read by Settle in parse.cc, which can refuse a list of CPUs that makes no sense.
    Works("VLLM_CPU_OMP_THREADS_BIND", Type::kString, "auto", nullptr,
          "CPUs of the worker threads: auto (a thread a physical core, pinned), nobind, or lists for the "
          "local ranks: "
          "0-15|16-31."),
    Works("VLLM_CPU_NUM_OF_RESERVED_CPU", Type::kInt, "0", Into<&CpuOptions::num_reserved_cpus>,
          "CPUs left free by auto.")
        .Range(0, 4096),
    Works("CADRE_ISA", Type::kString, "auto", Into<&CpuOptions::isa>,
          "Instruction set of the kernels; auto takes the fastest that this CPU has.")
        .Choices("auto,portable,avx2,avx512,avx512_bf16,amx"),
    Works(
        "VLLM_MOE_ROUTING_SIMULATION_STRATEGY", Type::kString, "", Into<&ModelOptions::routing_simulation>,
        "Experts drawn without looking at tokens, for measurements: uniform_random, or zipf[:S[:DRIFT]] (hot "
        "experts first, moving on every DRIFT steps). Answers are worth nothing then."),
    Works("HF_HUB_CACHE", Type::kString, "", nullptr, kHub),
    Works("HUGGINGFACE_HUB_CACHE", Type::kString, "", nullptr, "Older name of HF_HUB_CACHE."),
    Works("HF_HOME", Type::kString, "", nullptr, "hub/ below it is the cache, if HF_HUB_CACHE is unset."),
    Works("XDG_CACHE_HOME", Type::kString, "", nullptr,
          "huggingface/hub/ below it is the cache, if HF_HOME is unset."),
    Works("HOME", Type::kString, "", nullptr, ".cache/huggingface/hub/ below it is the cache otherwise."),
    Works("OMP_NUM_THREADS", Type::kInt, "", nullptr,
          "Worker threads of each rank with VLLM_CPU_OMP_THREADS_BIND=nobind, if --threads is unset.")
        .Range(1, 4096),
    Default("VLLM_DP_SIZE", "data-parallel-size", "Replicas, where every rank is started by itself."),
    Default("VLLM_DP_RANK", "data-parallel-rank", "The rank of this process there."),
    Default("VLLM_DP_MASTER_IP", "data-parallel-address", "Where all meet."),
    Default("VLLM_DP_MASTER_PORT", "data-parallel-rpc-port", "The port there."),
    NoEffect("VLLM_DP_RANK_LOCAL", Type::kInt, "0", "CPUs are chosen by VLLM_CPU_OMP_THREADS_BIND."),
    Works("VLLM_HOST_IP", Type::kString, "", Into<&ParallelOptions::host_ip>,
          "The address at which other nodes reach this one; otherwise that of the interface that leads to "
          "the first "
          "node."),
    Works("NCCL_SOCKET_IFNAME", Type::kString, "", Into<&ParallelOptions::nccl_ifname>,
          "The network interface to use between nodes (NCCL's forms: prefixes eth,ens, exact =eth0, all but "
          "^docker); VLLM_HOST_IP wins."),
    Works("GLOO_SOCKET_IFNAME", Type::kString, "", Into<&ParallelOptions::gloo_ifname>,
          "The same; NCCL_SOCKET_IFNAME wins."),
    Works("TP_SOCKET_IFNAME", Type::kString, "", Into<&ParallelOptions::tp_ifname>,
          "The same; the other two win."),
    NoEffect("VLLM_BATCH_INVARIANT", Type::kString, "", "Answers never depend on the batch here."),
    NoEffect("CUDA_VISIBLE_DEVICES", Type::kString, "", "This build runs on the CPU."),
    NoEffect("NCCL_*", Type::kString, "", kOneTransport),
};

struct Names {
  std::string_view reason;
  std::string_view names;  // without VLLM_ in front
};

constexpr Names kNoEffect[] = {
    {"The CPU kernels choose layout and arithmetic themselves.",
     "CPU_ATTN_SPLIT_KV CPU_INT4_W4A8 CPU_MOE_PREPACK FLOAT32_MATMUL_PRECISION KV_CACHE_LAYOUT "
     "ZENTORCH_WEIGHT_PREPACK"},
    {"It tunes GPU or other accelerator code, or a compiler; this build runs on the CPU.",
     "ALLOW_CHUNKED_LOCAL_ATTN_WITH_HYBRID_KV_CACHE ALLREDUCE_USE_FLASHINFER "
     "ALLREDUCE_USE_FLASHINFER_PCIE_IPC ALLREDUCE_USE_SYMM_MEM ATTENTION_BACKEND B12X_MOE_FP4_FORCE_A16 "
     "BLOCKSCALE_FP8_GEMM_FLASHINFER COMPILE_CACHE_SAVE_FORMAT CUDART_SO_PATH CUDA_COMPATIBILITY_PATH "
     "DBO_COMM_SMS DCP_Q_REPLICATE DEEPEPLL_NVFP4_DISPATCH DEEPEP_BUFFER_SIZE_MB "
     "DEEPEP_HIGH_THROUGHPUT_FORCE_INTRA_NODE DEEPEP_LOW_LATENCY_USE_MNNVL DEEPEP_V2_ALLOW_HYBRID_MODE "
     "DEEPEP_V2_ALLOW_MULTIPLE_REDUCTION DEEPEP_V2_PREFER_OVERLAP DEEP_GEMM_WARMUP DISABLED_KERNELS "
     "DISABLE_COMPILE_CACHE DISABLE_DSV4_MEGAMOE_SHARED_EXPERT_FUSION DISABLE_SHARED_EXPERTS_STREAM "
     "ENABLE_CUDAGRAPH_GC ENABLE_CUDA_COMPATIBILITY ENABLE_FLA_PACKED_RECURRENT_DECODE ENABLE_GEMM_RS "
     "ENABLE_HPC_OPS ENABLE_INDUCTOR_COORDINATE_DESCENT_TUNING ENABLE_INDUCTOR_MAX_AUTOTUNE "
     "ENABLE_PREGRAD_PASSES FLASHINFER_ALLREDUCE_BACKEND FLASHINFER_AUTOTUNE_CACHE_DIR "
     "FLASHINFER_AUTOTUNE_SKIP_OPS FLASHINFER_MOE_A2A_LOW_PRECISION_COMBINE "
     "FLASHINFER_WORKSPACE_BUFFER_SIZE FORCE_AOT_LOAD GDN_DECODE_KERNEL GPU_SYNC_CHECK "
     "HAS_FLASHINFER_CUBIN HUMMING_INPUT_QUANT_CONFIG HUMMING_MOE_GEMM_TYPE HUMMING_ONLINE_QUANT_CONFIG "
     "HUMMING_USE_F16_ACCUM KIMI_K3_AUX_ATTN_RES_STREAM KIMI_K3_GEMM_AR KIMI_K3_SHARD_SP_SHARED_EXPERT "
     "MARLIN_INPUT_DTYPE MARLIN_USE_ATOMIC_ADD MAX_TOKENS_PER_EXPERT_FP4_MOE "
     "MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS MLA_DISABLE MOE_SKIP_PADDING MOE_USE_DEEP_GEMM "
     "MULTI_STREAM_GEMM_TOKEN_THRESHOLD MXFP4_EMULATION_DEQUANT_AT_LOAD MXFP8_EMULATION_DEQUANT_AT_LOAD "
     "ROCM_AITER_MEGA_MOE_FUSE_SHARED_EXPERTS ROCM_AITER_MLA_ASM_PADDING ROCM_AITER_MLA_DCP_VERIFY "
     "ROCM_AITER_MOE_DISPATCH_POLICY ROCM_FP8_MFMA_PAGE_ATTN ROCM_FP8_PADDING ROCM_MOE_PADDING "
     "ROCM_MONO_DECODE ROCM_QUICK_REDUCE_CAST_BF16_TO_FP16 ROCM_QUICK_REDUCE_MAX_SIZE_BYTES_MB "
     "ROCM_QUICK_REDUCE_MIN_SIZE_BYTES_MB ROCM_QUICK_REDUCE_QUANTIZATION "
     "ROCM_QUICK_REDUCE_QUANTIZATION_MIN_SIZE_KB ROCM_SHUFFLE_KV_CACHE_LAYOUT ROCM_SLEEP_MEM_CHUNK_SIZE "
     "ROCM_USE_AITER ROCM_USE_AITER_CUSTOM_AR ROCM_USE_AITER_FP4BMM ROCM_USE_AITER_FP4_ASM_GEMM "
     "ROCM_USE_AITER_FP8BMM ROCM_USE_AITER_FUSION_SHARED_EXPERTS ROCM_USE_AITER_LINEAR "
     "ROCM_USE_AITER_LINEAR_HIPBMM ROCM_USE_AITER_MHA ROCM_USE_AITER_MLA ROCM_USE_AITER_MOE "
     "ROCM_USE_AITER_MOE_A4W4_DSV4 ROCM_USE_AITER_MOE_SITUV2 ROCM_USE_AITER_RMSNORM "
     "ROCM_USE_AITER_TRITON_GEMM ROCM_USE_AITER_TRITON_ROPE ROCM_USE_AITER_TRITON_SPARSE_MLA "
     "ROCM_USE_AITER_UNIFIED_ATTENTION ROCM_USE_SKINNY_GEMM SHARED_EXPERTS_STREAM_TOKEN_THRESHOLD "
     "SPARSE_INDEXER_MAX_LOGITS_MB SSM_CONV_STATE_LAYOUT TPU_USING_PATHWAYS TRITON_FORCE_FIRST_CONFIG "
     "TRITON_JIT_WARMUP_NUM_THREADS TRITON_USE_TD USE_AOT_COMPILE USE_BREAKABLE_CUDAGRAPH "
     "USE_BYTECODE_HOOK USE_DEEP_GEMM USE_DEEP_GEMM_E8M0 USE_DEEP_GEMM_TMA_ALIGNED_SCALES "
     "USE_DIRECT_DCP_A2A USE_DIRECT_DCP_KV_GATHER USE_DIRECT_DCP_Q_GATHER USE_FLASHINFER_MOE_FP8 "
     "USE_FLASHINFER_MOE_INT4 USE_FLASHINFER_SAMPLER USE_FUSED_MOE_GROUPED_TOPK USE_MEGA_AOT_ARTIFACT "
     "USE_OINK_OPS USE_STANDALONE_COMPILE USE_TRITON_AWQ WEIGHT_OFFLOADING_DISABLE_PIN_MEMORY "
     "WEIGHT_OFFLOADING_DISABLE_UVA WSL2_ENABLE_PIN_MEMORY XLA_CACHE_PATH XLA_CHECK_RECOMPILATION "
     "XLA_USE_SPMD XPU_FORCE_N_CONTIG_WEIGHT XPU_INC_WNA16_BACKEND XPU_PP_MICROBATCH "
     "XPU_USE_SAMPLER_KERNEL"},
    {"Ranks of one host find each other and talk over shared memory by themselves.",
     "DISABLE_PYNCCL DISTRIBUTED_USE_SPLIT_GROUP ELASTIC_EP_DRAIN_REQUESTS ELASTIC_EP_SCALE_UP_LAUNCH "
     "EXECUTE_MODEL_TIMEOUT_SECONDS GPU_NIC_PCIE_MAPPING LOOPBACK_IP MQ_MAX_CHUNK_BYTES_MB "
     "MSGPACK_ZERO_COPY_THRESHOLD NCCL_INCLUDE_PATH NCCL_SO_PATH NIC_SELECTION_VARS "
     "OBJECT_STORAGE_SHM_BUFFER OBJECT_STORAGE_SHM_BUFFER_NAME PORT PP_LAYER_PARTITION "
     "RANDOMIZE_DP_DUMMY_INPUTS REPLICATE_EMBED RPC_BASE_PATH SKIP_P2P_CHECK USE_NCCL_SYMM_MEM "
     "WORKER_SHUTDOWN_TIMEOUT_SECONDS"},
    {"Ray is not used: ranks are processes that cadre serve starts and watches.",
     "RAY_BUNDLE_INDICES RAY_DP_PACK_STRATEGY RAY_DP_PLACEMENT_NODE_IPS RAY_EXTRA_ENV_VARS_TO_COPY "
     "RAY_EXTRA_ENV_VAR_PREFIXES_TO_COPY RAY_PER_WORKER_GPUS USE_RAY_COMPILED_DAG_CHANNEL_TYPE "
     "USE_RAY_COMPILED_DAG_OVERLAP_COMM USE_RAY_V2_EXECUTOR_BACKEND USE_RAY_WRAPPED_PP_COMM"},
    {"KV blocks travel through shared memory and TCP; --kv-transfer-config says with whom.",
     "EC_SIDE_CHANNEL_HOST EC_SIDE_CHANNEL_PORT KV_EVENTS_USE_INT_BLOCK_HASHES "
     "KV_OFFLOAD_MAX_BATCH_DESCRIPTORS MOONCAKE_ABORT_REQUEST_TIMEOUT MOONCAKE_BOOTSTRAP_PORT "
     "MOONCAKE_CONNECTOR_TIMEOUT MOONCAKE_DISK_STAGING_USABLE_RATIO MOONCAKE_LOAD_RECV_THREADS "
     "MOONCAKE_STORE_TIER_LOG P2P_HANDSHAKE_TIMEOUT_S P2P_IDLE_TIMEOUT_S P2P_MAX_PEERS P2P_SIDE_CHANNEL_HOST "
     "P2P_SIDE_CHANNEL_PORT "
     "USE_SIMPLE_KV_OFFLOAD"},
    {"LoRA adapters are loaded by name and folder; nothing looks for one that a request names.",
     "LORA_RESOLVER_CACHE_DIR LORA_RESOLVER_HF_REPO_LIST"},
    {"The kernels of LoRA adapters follow the CPU's instruction set.",
     "LORA_DISABLE_PDL LORA_ENABLE_DUAL_STREAM"},
    {"Images, audio and video are not built.",
     "ASSETS_CACHE ASSETS_CACHE_MODEL_CLEAN AUDIO_FETCH_TIMEOUT IMAGE_FETCH_TIMEOUT "
     "MAX_AUDIO_CLIP_FILESIZE_MB MAX_AUDIO_DECODE_BYTES MAX_AUDIO_DECODE_DURATION_S "
     "MAX_AUDIO_PREPROCESS_WORKERS MAX_EMBED_DECODE_BYTES MAX_IMAGE_PIXELS MAX_MEDIA_DOWNLOAD_SIZE_MB "
     "MEDIA_CACHE MEDIA_CACHE_MAX_SIZE_MB MEDIA_CACHE_TTL_HOURS MEDIA_CONNECTOR MEDIA_FETCH_MAX_RETRIES "
     "MEDIA_LOADING_THREAD_COUNT MEDIA_URL_ALLOW_REDIRECTS VIDEO_FETCH_TIMEOUT VIDEO_LOADER_BACKEND"},
    {"Tool parsers, grammars and these further APIs are not built.",
     "ENABLE_COHERE_API ENABLE_RESPONSES_API_STORE ENFORCE_STRICT_TOOL_CALLING "
     "GPT_OSS_HARMONY_SYSTEM_INSTRUCTIONS GPT_OSS_SYSTEM_TOOL_MCP_LABELS REGEX_COMPILATION_TIMEOUT_S "
     "TOOL_JSON_ERROR_AUTOMATIC_RETRY TOOL_PARSE_REGEX_TIMEOUT_SECONDS USE_EXPERIMENTAL_PARSER_CONTEXT "
     "V1_USE_OUTLINES_CACHE XGRAMMAR_CACHE_MB"},
    {"Requests have built-in limits.",
     "CHAT_TEMPLATE_RENDER_TIMEOUT MAX_BAD_WORDS_TOTAL_TOKENS MAX_COMPLETION_PROMPTS MAX_NUM_BAD_WORDS "
     "MAX_N_SEQUENCES MAX_STOP_STRINGS"},
    {"There are no usage statistics and no debug dumps; --log-level sets what is logged.",
     "CONFIGURE_LOGGING CUSTOM_SCOPES_FOR_PROFILING DEBUG_DUMP_PATH DEBUG_LOG_API_SERVER_RESPONSE "
     "DEBUG_MFU_METRICS DEBUG_WORKSPACE DISABLE_LOG_LOGO DO_NOT_TRACK GC_DEBUG LOGGING_CONFIG_PATH "
     "LOGGING_PREFIX LOGGING_STREAM LOG_BATCHSIZE_INTERVAL LOG_MODEL_INSPECTION NO_USAGE_STATS "
     "NVTX_SCOPES_FOR_PROFILING PATTERN_MATCH_DEBUG PROCESS_NAME_PREFIX RINGBUFFER_WARNING_INTERVAL "
     "SYSTEM_START_DATE TRACE_FUNCTION USAGE_SOURCE USAGE_STATS_SERVER"},
    {"It is about how vLLM runs its Python processes and plugins; there are none here.",
     "ALLOW_INSECURE_SERIALIZATION CACHE_ROOT CONFIG_ROOT DISABLE_REQUEST_ID_RANDOMIZATION "
     "ENABLE_STARTUP_PLAN ENABLE_V1_MULTIPROCESSING FASTSAFETENSORS_QUEUE_SIZE KEEP_ALIVE_ON_ENGINE_DEATH "
     "PLUGINS RUST_FRONTEND_PATH SKIP_MODEL_NAME_VALIDATION TEST_FORCE_LOAD_FORMAT TUNED_CONFIG_FOLDER "
     "USE_FASTOKENS USE_HW_AGNOSTIC USE_LAYERNAME USE_RUST_BENCH USE_RUST_FRONTEND USE_SPINLOOP_EXT USE_V1 "
     "USE_V2_MODEL_RUNNER V1_OUTPUT_PROC_CHUNK_SIZE WORKER_MULTIPROC_METHOD"},
    {"Nothing is downloaded: models are folders or lie in the local Hugging Face cache.",
     "MODEL_REDIRECT_PATH USE_MODELSCOPE"},
    {"It is read when vLLM is built.",
     "BUILD_COMMIT BUILD_PIPELINE BUILD_URL CPU_CI_ENV DOCKER_BUILD_CONTEXT IMAGE_TAG MAIN_CUDA_VERSION "
     "PRECOMPILED_WHEEL_LOCATION SKIP_PRECOMPILED_VERSION_SUFFIX SKIP_VERSION_SUFFIX TARGET_DEVICE "
     "USE_PRECOMPILED USE_PRECOMPILED_RUST"},
    {"It is for studies inside vLLM and has no counterpart here.",
     "ADAPTIVE_VERIFICATION_PROFILE_CONTEXT_LEN COMPUTE_NANS_IN_LOGITS "
     "RAISE_ON_LOGIT_NANS"},
};

/// The table owns the full names of kNoEffect.
struct Tables {
  std::deque<std::string> names;
  std::vector<Setting> silent;
  std::vector<Group> groups;

  Tables() {
    for (const Names& list : kNoEffect) {
      std::string_view rest = list.names;
      while (!rest.empty()) {
        const size_t space = std::min(rest.find(' '), rest.size());
        names.push_back("VLLM_" + std::string(rest.substr(0, space)));
        silent.push_back(NoEffect(names.back(), Type::kString, "", list.reason));
        rest.remove_prefix(std::min(space + 1, rest.size()));
      }
    }
    groups = {{"Environment", "Environment variables", kRead},
              {"SilentEnvironment", "vLLM's variables without effect here", silent}};
  }
};

}  // namespace

const std::vector<Group>& EnvironmentGroups() {
  static const Tables tables;
  return tables.groups;
}

const Setting* FindVariable(std::string_view name) {
  for (const Group& group : EnvironmentGroups()) {
    for (const Setting& setting : group.settings) {
      if (setting.name == name) return &setting;
      if (setting.name.ends_with('*') && name.starts_with(setting.name.substr(0, setting.name.size() - 1)))
        return &setting;
    }
  }
  return nullptr;
}

}  // namespace cadre::config
