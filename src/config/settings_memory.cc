// Flags of vLLM's CacheConfig, OffloadConfig and SchedulerConfig.
#include "config/settings.h"

namespace cadre::config {
namespace {

constexpr double kWide = 9.2e18;

constexpr std::string_view kOneTier =
    "Weights and KV blocks lie in the host's memory already; there is nothing to offload to.";

constexpr Setting kCache[] = {
    Works("block-size", Type::kInt, "16", Into<&CacheOptions::block_size>,
          "Tokens in one block of the KV cache.")
        .Range(1, 4096),
    Works("gpu-memory-utilization", Type::kFloat, "0.92", Into<&CacheOptions::gpu_memory_utilization>,
          "Share of the host's (or cgroup's) memory that all local ranks together may use for weights, "
          "buffers and KV "
          "cache.")
        .Alias("device-memory-utilization")
        .Range(0, 1),
    Works("kv-cache-memory-bytes", Type::kHumanInt, "", Into<&CacheOptions::kv_cache_memory_bytes>,
          "KV cache of each rank in bytes (4G, 500m, ...); then --gpu-memory-utilization does not size it.")
        .Range(1, kWide),
    Works("num-gpu-blocks-override", Type::kInt, "", Into<&CacheOptions::num_gpu_blocks_override>,
          "KV blocks of each rank, whatever the memory; for tests.")
        .Range(1),
    Works("enable-prefix-caching", Type::kBool, "true", Into<&CacheOptions::enable_prefix_caching>,
          "Keep blocks of past prompts and reuse them when a new prompt begins alike."),
    Works("kv-cache-dtype", Type::kString, "auto", Into<&CacheOptions::kv_cache_dtype>,
          "Type of the KV cache: auto (bfloat16, or float32 with --dtype float32) or bfloat16.")
        .Choices("auto,bfloat16,float16,fp8,fp8_ds_mla,fp8_e4m3,fp8_e5m2,fp8_inc,fp8_per_token_head,int4_per_"
                 "token_head,"
                 "int8_per_token_head,nvfp4,nvfp4_4over6,nvfp4_ds_mla,turboquant_3bit_nc,turboquant_4bit_nc,"
                 "turboquant_k3v4_nc,turboquant_k8v4,ultraquant_4bit")
        .Only("auto,bfloat16", "Only auto and bfloat16 are built."),
    NoEffect("prefix-caching-hash-algo", Type::kString, "sha256",
             "Prefix blocks are found by one built-in hash.")
        .Choices("sha256,sha256_cbor,xxhash,xxhash_cbor"),
    NotBuilt("prefix-cache-retention-interval", Type::kInt, "0",
             "Blocks leave the prefix cache by least recent use only."),
    NoEffect("prefix-match-unit", Type::kInt, "", "Prefixes are matched by whole blocks."),
    NotBuilt("kv-cache-dtype-skip-layers", Type::kStrings, "[]", "All layers keep one KV type."),
    NoEffect("kv-sharing-fast-prefill", Type::kBool, "false",
             "No built architecture shares KV between layers."),
    NoEffect("swa-bounded-replay", Type::kBool, "true",
             "Prefix hits of sliding-window layers are always whole."),
    NoEffect("mamba-cache-dtype", Type::kString, "auto", kNoMamba).Choices("auto,bfloat16,float16,float32"),
    NoEffect("mamba-ssm-cache-dtype", Type::kString, "auto", kNoMamba)
        .Choices("auto,bfloat16,float16,float32"),
    NoEffect("mamba-block-size", Type::kInt, "", kNoMamba),
    NoEffect("mamba-cache-mode", Type::kString, "none", kNoMamba).Choices("align,none"),
    NoEffect("enable-mamba-shared-prefix-checkpoint", Type::kBool, "false", kNoMamba),
    NoEffect("replayssm-buffer-len", Type::kInt, "16", kNoMamba),
    NoEffect("use-replayssm", Type::kBool, "false", kNoMamba),
    NotBuilt("kv-offloading-size", Type::kFloat, "", kOneTier),
    NoEffect("kv-offloading-backend", Type::kString, "native", kOneTier).Choices("lmcache,native"),
    NoEffect("swap-space", Type::kFloat, "4", "Preempted requests are computed again; nothing is swapped."),
};

constexpr Setting kOffload[] = {
    NoEffect("offload-backend", Type::kString, "auto", kOneTier).Choices("auto,prefetch,uva"),
    NoEffect("cpu-offload-gb", Type::kFloat, "0", kOneTier),
    NoEffect("cpu-offload-params", Type::kStrings, "[]", kOneTier),
    NoEffect("offload-group-size", Type::kInt, "0", kOneTier),
    NoEffect("offload-num-in-group", Type::kInt, "1", kOneTier),
    NoEffect("offload-prefetch-step", Type::kInt, "1", kOneTier),
    NoEffect("offload-params", Type::kStrings, "[]", kOneTier),
};

constexpr std::string_view kOneSchedule = "The scheduler is built in.";

constexpr Setting kScheduler[] = {
    Works("max-num-seqs", Type::kInt, "128", Into<&SchedulerOptions::max_num_seqs>,
          "Most requests that run at once, per DP rank.")
        .Range(1),
    Works("max-num-batched-tokens", Type::kHumanInt, "2048", Into<&SchedulerOptions::max_num_batched_tokens>,
          "Most tokens in one step, per DP rank.")
        .Range(1, 1 << 24),
    Works("max-num-queued-reqs", Type::kInt, "", Into<&SchedulerOptions::max_num_queued_reqs>,
          "Requests that may wait, per DP rank, before new ones get 429; a generous built-in limit if unset.")
        .Range(1),
    Works("enable-chunked-prefill", Type::kBool, "true", Into<&SchedulerOptions::enable_chunked_prefill>,
          "Split long prompts over steps so that running requests go on."),
    Works(
        "scheduling-policy", Type::kString, "fcfs", Into<&SchedulerOptions::scheduling_policy>,
        "Who runs first, and who gives way when blocks run out: fcfs (first come, first served) or priority "
        "(the request's priority field, lower first; equal ones by arrival).")
        .Choices("fcfs,priority"),
    NotBuilt("max-num-scheduled-tokens", Type::kInt, "", "Use --max-num-batched-tokens."),
    NotBuilt("max-num-active-seqs", Type::kInt, "", "Use --max-num-seqs."),
    NotBuilt("max-num-queued-tokens", Type::kInt, "", "Use --max-num-queued-reqs."),
    Works("long-prefill-token-threshold", Type::kInt, "0",
          Into<&SchedulerOptions::long_prefill_token_threshold>,
          "Most prompt tokens of one request in a step, so that a long prompt leaves room for others; 0: no "
          "limit "
          "but --max-num-batched-tokens.")
        .Range(0, 1 << 24),
    NotBuilt("long-prefill-token-threshold-adaptive", Type::kBool, "false",
             "Chunks of prefill are bounded by --max-num-batched-tokens."),
    NoEffect("disable-chunked-mm-input", Type::kBool, "false", kNoVisionTuning),
    NotBuilt("scheduler-cls", Type::kString, "", kNoPython),
    NoEffect("scheduler-reserve-full-isl", Type::kBool, "true",
             "A request starts when blocks for all its known tokens are free."),
    NotBuilt("watermark", Type::kFloat, "0.0", "No share of the KV blocks is held back."),
    NotBuilt("prefill-schedule-interval", Type::kInt, "1", "New prompts may start at every step."),
    NoEffect("disable-hybrid-kv-cache-manager", Type::kBool, "", "There is one KV cache manager."),
    NoEffect("async-scheduling", Type::kBool, "", kOneSchedule),
    Works(
        "stream-interval", Type::kInt, "1", Into<&SchedulerOptions::stream_interval>,
        "Tokens between two events of a stream; the first and the last one are sent at once. A request's own "
        "stream_interval wins.")
        .Range(1, 1 << 20),
    NoEffect("num-scheduler-steps", Type::kInt, "1", kOneSchedule),
};

}  // namespace

std::vector<Group> MemoryGroups() {
  return {{"CacheConfig", "KV cache and memory", kCache},
          {"OffloadConfig", "Offloading", kOffload},
          {"SchedulerConfig", "Batching", kScheduler}};
}

}  // namespace cadre::config
