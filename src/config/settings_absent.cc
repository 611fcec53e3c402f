// Flags of the parts of vLLM that Cadre does not have: multimodal input, speculation, compilation, GPU
// kernels, tracing. Each is refused by name or said to have no effect.
#include "config/settings.h"

namespace cadre::config {
namespace {

constexpr Setting kMultiModal[] = {
    NoEffect("language-model-only", Type::kBool, "false", "Cadre serves language models only."),
    NoEffect("limit-mm-per-prompt", Type::kJson, "{}", kNoVisionTuning),
    NotBuilt("enable-mm-embeds", Type::kBool, "false", kNoVision),
    NoEffect("media-io-kwargs", Type::kJson, "{}", kNoVisionTuning),
    NoEffect("mm-processor-kwargs", Type::kJson, "", kNoVisionTuning),
    NoEffect("mm-processor-cache-gb", Type::kFloat, "4", kNoVisionTuning),
    NoEffect("mm-processor-cache-type", Type::kString, "lru", kNoVisionTuning).Choices("lru,shm"),
    NoEffect("mm-hasher-algorithm", Type::kString, "blake3", kNoVisionTuning).Choices("blake3,sha256,sha512"),
    NoEffect("mm-shm-cache-max-object-size-mb", Type::kInt, "128", kNoVisionTuning),
    NotBuilt("mm-encoder-only", Type::kBool, "false", kNoVision),
    NoEffect("mm-encoder-tp-mode", Type::kString, "weights", kNoVisionTuning).Choices("data,weights"),
    NoEffect("mm-encoder-attn-backend", Type::kString, "", kNoVisionTuning),
    NoEffect("mm-encoder-attn-dtype", Type::kString, "", kNoVisionTuning).Choices("fp8,None"),
    NoEffect("mm-encoder-fp8-scale-path", Type::kString, "", kNoVisionTuning),
    NoEffect("mm-encoder-fp8-scale-save-path", Type::kString, "", kNoVisionTuning),
    NoEffect("mm-encoder-fp8-scale-save-margin", Type::kFloat, "1.5", kNoVisionTuning),
    NoEffect("interleave-mm-strings", Type::kBool, "false", kNoVisionTuning),
    NoEffect("skip-mm-profiling", Type::kBool, "false", kNoVisionTuning),
    NoEffect("video-pruning-rate", Type::kFloat, "", kNoVisionTuning),
    NoEffect("video-pruning-method", Type::kString, "evs", kNoVisionTuning).Choices("evs,vidcom2"),
    NoEffect("mm-tensor-ipc", Type::kString, "direct_rpc", kNoVisionTuning).Choices("direct_rpc,torch_shm"),
    NoEffect("mm-processor-device", Type::kString, "auto", kNoVisionTuning).Choices("auto,cpu"),
    NoEffect("mm-ipc-gpu-memory-gb", Type::kFloat, "0", kNoVisionTuning),
    NoEffect("mm-device-do-normalize", Type::kBool, "", kNoVisionTuning),
};

constexpr std::string_view kNoTracing = "Traces are not built; see /metrics and the log.";
constexpr std::string_view kFixedMetrics = "The metrics are those listed in the documentation, always on.";

constexpr Setting kObservability[] = {
    NoEffect("show-hidden-metrics-for-version", Type::kString, "", kFixedMetrics),
    NotBuilt("otlp-traces-endpoint", Type::kString, "", kNoTracing),
    NotBuilt("collect-detailed-traces", Type::kStrings, "", kNoTracing),
    NoEffect("per-request-spec-decode-metrics", Type::kString, "none", kNoSpeculation)
        .Choices("detailed,none,summary"),
    NotBuilt("kv-cache-metrics", Type::kBool, "false", "Metrics of KV block lifetimes are not built."),
    NoEffect("kv-cache-metrics-sample", Type::kFloat, "0.01", "Metrics of KV block lifetimes are not built."),
    NotBuilt("custom-histogram-buckets", Type::kJson, "", "Histograms keep vLLM's own buckets."),
    NoEffect("cudagraph-metrics", Type::kBool, "false", kNoGraphs),
    NoEffect("enable-layerwise-nvtx-tracing", Type::kBool, "false", "There is no GPU profiler here."),
    NotBuilt("enable-mfu-metrics", Type::kBool, "false",
             "cadre bench prints each result beside the machine's floor instead."),
    NotBuilt("enable-logging-iteration-details", Type::kBool, "false", "Use --log-level trace."),
    NoEffect("jit-monitor-mode", Type::kString, "warn", kNoGraphs).Choices("error,warn"),
    NoEffect("jit-monitor-verbose", Type::kBool, "false", kNoGraphs),
};

constexpr Setting kKernels[] = {
    NoEffect("attention-backend", Type::kString, "", kNoGpuKernels),
    NoEffect("attention-config", Type::kJson, "{}", kNoGpuKernels).Short("ac"),
    NoEffect("mamba-backend", Type::kString, "triton", kNoMamba),
    NoEffect("mamba-ssu-algorithm", Type::kString, "", kNoMamba)
        .Choices("auto,horizontal,simple,vertical,None"),
    NoEffect("enable-mamba-cache-stochastic-rounding", Type::kBool, "false", kNoMamba),
    NoEffect("mamba-cache-philox-rounds", Type::kInt, "0", kNoMamba),
    NoEffect("compilation-config", Type::kJson, "{}", kNoGraphs).Short("cc"),
    NoEffect("optimization-level", Type::kString, "2", kNoGraphs).Short("O").Choices("0,1,2,3,O0,O1,O2,O3"),
    NoEffect("performance-mode", Type::kString, "balanced", kNoGraphs)
        .Choices("balanced,interactivity,throughput"),
    NoEffect("cudagraph-capture-sizes", Type::kStrings, "", kNoGraphs),
    NoEffect("max-cudagraph-capture-size", Type::kInt, "", kNoGraphs),
    NoEffect("max-seq-len-to-capture", Type::kInt, "8192", kNoGraphs),
    NoEffect("kernel-config", Type::kJson, "{}", kNoGpuKernels),
    NoEffect("ir-op-priority", Type::kJsonOrString, "{}", kNoGpuKernels),
    NoEffect("enable-flashinfer-autotune", Type::kBool, "", kNoGpuKernels),
    NoEffect("moe-backend", Type::kString, "auto", kNoGpuKernels),
    NoEffect("linear-backend", Type::kString, "auto", kNoGpuKernels),
    NoEffect("sparse-indexer-topk-backend", Type::kString, "auto", kNoGpuKernels),
    NoEffect("device", Type::kString, "auto", "This build runs on the CPU."),
};

constexpr std::string_view kLaterSchemas =
    "Answers bound to a schema or grammar come later; leave the flag out.";

constexpr Setting kOther[] = {
    NotBuilt("speculative-config", Type::kJson, "", kNoSpeculation).Short("sc"),
    NotBuilt("spec-method", Type::kString, "", kNoSpeculation),
    NotBuilt("spec-model", Type::kString, "", kNoSpeculation),
    NotBuilt("spec-tokens", Type::kInt, "", kNoSpeculation),
    NotBuilt("watermark-config", Type::kJson, "", "Watermarks are not built; leave the flag out."),
    NotBuilt("diffusion-config", Type::kJson, "", "Diffusion models are not built.").Short("dc"),
    Works("kv-transfer-config", Type::kJson, "", TakenByMembers,
          "Hands blocks of the KV cache to other instances and takes theirs: "
          "'{\"kv_connector\":\"NixlConnector\",\"kv_role\":\"kv_both\"}'."),
    NotBuilt("kv-events-config", Type::kJson, "",
             "Events of the KV cache are not published; leave the flag out."),
    NotBuilt("ec-transfer-config", Type::kJson, "", kNoVision),
    NotBuilt("ec-manager-config", Type::kJson, "{}", kNoVision),
    NotBuilt("engram-config", Type::kJson, "", "Models with Engram memory are not built."),
    NotBuilt("reasoning-config", Type::kJson, "", kLaterTools),
    NoEffect("additional-config", Type::kJsonOrString, "{}",
             "It is for vLLM's platform plugins; there are none here."),
    NotBuilt("structured-outputs-config", Type::kJson, "{}", kLaterSchemas),
    NotBuilt("aux-output-config", Type::kJson, "{}", "Auxiliary outputs are not built; leave the flag out."),
    NotBuilt("profiler-config", Type::kJson, "{}",
             "Profiling endpoints are not built; use perf on the process."),
    NoEffect("weight-transfer-config", Type::kJson, "",
             "Weights arrive from a folder or over a socket, whichever a request names; see docs/rl.md."),
    NotBuilt("logging-config", Type::kJson, "", "Use --log-level."),
    NotBuilt("log-config-file", Type::kString, "", "Use --log-level."),
    NoEffect("guided-decoding-backend", Type::kString, "auto", kLaterSchemas),
};

}  // namespace

std::vector<Group> AbsentGroups() {
  return {{"ObservabilityConfig", "Metrics and traces", kObservability},
          {"KernelConfig", "Compilation and kernels", kKernels},
          {"MultiModalConfig", "Images, audio and video", kMultiModal},
          LoraGroup(),
          {"VllmConfig", "Other parts of vLLM", kOther}};
}

}  // namespace cadre::config
