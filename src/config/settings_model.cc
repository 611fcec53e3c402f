// Flags of vLLM's ModelConfig and LoadConfig.
#include "config/settings.h"

namespace cadre::config {
namespace {

constexpr double kWide = 9.2e18;  // for rows whose field has 64 bits

constexpr std::string_view kLaterModes =
    "Pooling, embedding and draft models are not built; Cadre generates text.";

constexpr Setting kModel[] = {
    Works("model", Type::kString, "", Into<&ModelOptions::model>,
          "A model's folder, or a hub name found in the local Hugging Face cache. Usually written as the "
          "first word "
          "instead of with this flag."),
    Works("tokenizer", Type::kString, "", Into<&ModelOptions::tokenizer>,
          "Folder or hub name of another tokenizer; the model's own if unset."),
    Works("tokenizer-revision", Type::kString, "", Into<&ModelOptions::tokenizer_revision>,
          "Revision of a tokenizer given by hub name."),
    Works("revision", Type::kString, "", Into<&ModelOptions::revision>,
          "Branch, tag or commit of a model given by hub name; main if unset."),
    Works("served-model-name", Type::kStrings, "", Into<&ModelOptions::served_model_names>,
          "Names that requests may use; the first is used in answers. The model as written if unset."),
    Works("dtype", Type::kString, "auto", Into<&ModelOptions::dtype>,
          "Arithmetic: bfloat16 (weights and matmul inputs bf16, sums f32) or float32. auto follows the "
          "checkpoint; "
          "a float16 checkpoint runs in bfloat16.")
        .Choices("auto,bfloat16,float,float16,float32,half")
        .Only("auto,bfloat16,float,float32", "float16 arithmetic is not built; use bfloat16 or float32."),
    Works("seed", Type::kInt, "0", Into<&ModelOptions::seed>,
          "Seed for requests that bring none of their own.")
        .Range(-kWide, kWide),
    Works("max-model-len", Type::kHumanIntOrAuto, "", Into<&ModelOptions::max_model_len>,
          "Longest prompt plus answer in tokens: 4096, 4k, 4K, or auto for the longest that fits in memory. "
          "The "
          "model's own limit if unset.")
        .Range(-1, kWide),
    Works("skip-tokenizer-init", Type::kBool, "false", Into<&ModelOptions::skip_tokenizer_init>,
          "Load no tokenizer: prompts and answers are token ids only."),
    Works("max-logprobs", Type::kInt, "20", Into<&ModelOptions::max_logprobs>,
          "Most log probabilities that a request may ask for at each token; -1: no limit.")
        .Range(-1),
    Works("logprobs-mode", Type::kString, "raw_logprobs", Into<&ModelOptions::logprobs_mode>,
          "What the logprobs of generated tokens are: of the model's own distribution (raw), or of the one "
          "that was "
          "drawn from, after penalties, temperature, min_p, top_k and top_p (processed); or the logits of "
          "either.")
        .Choices("processed_logits,processed_logprobs,raw_logits,raw_logprobs"),
    Works("hf-overrides", Type::kJson, "{}", Into<&ModelOptions::hf_overrides>,
          "Members laid over the checkpoint's config.json."),
    Works("generation-config", Type::kString, "auto", Into<&ModelOptions::generation_config>,
          "Where default sampling parameters come from: auto (the model's generation_config.json), vllm "
          "(none), or a "
          "folder."),
    Works("override-generation-config", Type::kJson, "{}", Into<&ModelOptions::override_generation_config>,
          "Members laid over the default sampling parameters."),
    Works("runner", Type::kString, "auto", nullptr, "What the model is used for.")
        .Choices("auto,draft,generate,pooling")
        .Only("auto,generate", kLaterModes),
    Works("convert", Type::kString, "auto", nullptr, "Conversion to another kind of model.")
        .Choices("auto,classify,embed,none")
        .Only("auto,none", kLaterModes),
    Works("tokenizer-mode", Type::kString, "auto", nullptr, "How tokenizer files are read: tokenizer.json.")
        .Only("auto,hf,slow", "Only tokenizer.json is read (auto or hf); mistral's tekken files are not."),
    Works("config-format", Type::kString, "auto", nullptr,
          "How the model's configuration is read: config.json.")
        .Only("auto,hf", "Only Hugging Face's config.json is read; params.json is not."),
    NoEffect("model-impl", Type::kString, "auto", kNoPython),
    NoEffect("trust-remote-code", Type::kBool, "false", kNoPython),
    NoEffect("code-revision", Type::kString, "", kNoPython),
    NoEffect("hf-token", Type::kString, "", kNoDownloads),
    NotBuilt("hf-config-path", Type::kString, "",
             "config.json is read from the model's folder; use --hf-overrides to change members of it."),
    NotBuilt("model-class-overrides", Type::kJson, "{}", kNoPython),
    NotBuilt("allowed-local-media-path", Type::kString, "", kNoVision),
    NotBuilt("allowed-media-domains", Type::kStrings, "", kNoVision),
    Works("quantization", Type::kString, "", Into<&ModelOptions::quantization>,
          "fp8: experts and dense linear layers of a bf16, f16 or f32 checkpoint become 8-bit floats while "
          "it is "
          "loaded. An fp8 checkpoint is known from its config.json (methods fp8 and compressed-tensors); "
          "what is said "
          "here must then be the same.")
        .Short("q")
        .Only("fp8,compressed-tensors",
              "Other quantised weights come later; serve a bf16, f16, f32 or fp8 checkpoint for now."),
    NotBuilt("quantization-config", Type::kJsonOrString, "",
             "The scales' kind follows from the checkpoint; use --quantization fp8 alone."),
    NoEffect("allow-deprecated-quantization", Type::kBool, "false", "No deprecated method is built."),
    NoEffect("enforce-eager", Type::kBool, "false", kNoGraphs),
    Works("enable-return-routed-experts", Type::kBool, "false", Into<&ModelOptions::return_routed_experts>,
          "Answers carry routed_experts: which experts each token had in each layer."),
    NotBuilt("return-sampling-mask", Type::kBool, "false",
             "Returning the sampling mask is not built; leave the flag out."),
    NoEffect("use-fp64-gumbel", Type::kBool, "false",
             "Tokens are drawn from a counter-based generator with 53 bits, the same on every layout."),
    NotBuilt("enable-trace-replay", Type::kBool, "false",
             "Replaying traces is not built; leave the flag out."),
    NotBuilt("disable-sliding-window", Type::kBool, "false",
             "Sliding-window layers always keep their window; use --max-model-len to stay below it."),
    NoEffect("disable-cascade-attn", Type::kBool, "", kNoGpuKernels),
    NotBuilt("enable-prompt-embeds", Type::kBool, "false",
             "Prompts as embeddings are not built; send text or token ids."),
    NotBuilt("pooler-config", Type::kJson, "", kLaterModes),
    NotBuilt("enable-sleep-mode", Type::kBool, "false", kNoSleep),
    NoEffect("sleep-mode-offload-cudagraph", Type::kBool, "false", kNoGraphs),
    NotBuilt("sleep-preserve-parameter-names", Type::kStrings, "[]", kNoSleep),
    NoEffect("enable-cumem-allocator", Type::kBool, "false", "There is no CUDA memory here."),
    NoEffect("enable-nccl-comm-suspend", Type::kBool, "false", kOneTransport),
    NotBuilt("logits-processors", Type::kStrings, "", kNoPython),
    NotBuilt("io-processor-plugin", Type::kString, "", kNoPython),
    NoEffect("renderer-num-workers", Type::kInt, "1",
             "Chat templates and tokenizing run on the server's own threads."),
};

constexpr std::string_view kOneReader =
    "safetensors are read in parallel straight into their final place, always in the same way.";

constexpr Setting kLoad[] = {
    Works("load-format", Type::kString, "auto", Into<&ModelOptions::load_format>,
          "How weights are read: safetensors.")
        .Only("auto,safetensors,hf", "Only safetensors are read (auto or safetensors)."),
    Works("download-dir", Type::kString, "", Into<&ModelOptions::hub_cache>,
          "Folder of the Hugging Face cache in which hub names are looked up. Nothing is downloaded."),
    Works("use-tqdm-on-load", Type::kBool, "true", Into<&ModelOptions::show_progress>,
          "Show a progress bar while weights are read."),
    NoEffect("safetensors-load-strategy", Type::kString, "", kOneReader)
        .Choices("eager,lazy,prefetch,torchao,None"),
    NoEffect("safetensors-prefetch-num-threads", Type::kInt, "8", kOneReader),
    NoEffect("safetensors-prefetch-block-size", Type::kHumanInt, "16777216", kOneReader),
    NoEffect("model-loader-extra-config", Type::kJsonOrString, "{}", kOneReader),
    NoEffect("ignore-patterns", Type::kStrings, R"(["original/**/*"])", kNoDownloads),
    NoEffect("pt-load-map-location", Type::kJsonOrString, "cpu",
             "Only safetensors are read, never pickled PyTorch files."),
};

}  // namespace

std::vector<Group> ModelGroups() {
  return {{"ModelConfig", "Which model, and its arithmetic", kModel},
          {"LoadConfig", "How weights are read", kLoad}};
}

}  // namespace cadre::config
