// Flags of `vllm bench latency|throughput|serve`, and --json.
#include "config/settings.h"

namespace cadre::config {
namespace {

constexpr std::string_view kOnlyRandom = "Only the random data set is built (--dataset-name random).";
constexpr std::string_view kNoProfile = "Profiling is not built; use perf on the process.";
constexpr std::string_view kNoBeams = "Beam search is not built.";
constexpr std::string_view kOtherData =
    "It belongs to a data set that is not built; use --dataset-name random.";
constexpr std::string_view kNoHf =
    "There is no Hugging Face or asynchronous back end here: the engine runs in this process.";
constexpr std::string_view kJsonHelp = "Write Cadre's results here: speeds and the floors beside them.";
constexpr std::string_view kNoPlots =
    "This plot is not built; --svg draws another, --save-detailed writes the numbers.";

using L = BenchLatencyOptions;
constexpr Setting kLatency[] = {
    Works("input-len", Type::kInt, "32", Into<&L::input_len>, "Tokens of each prompt.").Range(1),
    Works("output-len", Type::kInt, "128", Into<&L::output_len>, "Tokens of each answer.").Range(1),
    Works("batch-size", Type::kInt, "8", Into<&L::batch_size>, "Requests at once.").Range(1),
    Works("n", Type::kInt, "1", Into<&L::n>, "Answers to each prompt.").Range(1),
    Works("num-iters-warmup", Type::kInt, "10", Into<&L::num_iters_warmup>, "Rounds before the clock starts.")
        .Range(0),
    Works("num-iters", Type::kInt, "30", Into<&L::num_iters>, "Rounds measured.").Range(1),
    Works("output-json", Type::kString, "", Into<&L::output_json>, "Write vLLM's result fields here."),
    Works("json", Type::kString, "", Into<&L::json>, kJsonHelp),
    Works("disable-detokenize", Type::kTrue, "false", Into<&L::disable_detokenize>,
          "Leave out turning tokens to text."),
    NotBuilt("use-beam-search", Type::kTrue, "false", kNoBeams),
    NotBuilt("profile", Type::kTrue, "false", kNoProfile),
};

using T = BenchThroughputOptions;
constexpr Setting kThroughput[] = {
    Works("dataset-name", Type::kString, "random", nullptr, "Where prompts come from: random tokens.")
        .Only("random", kOnlyRandom),
    Works("input-len", Type::kInt, "", Into<&T::input_len>, "Tokens of each prompt.").Range(1),
    Works("output-len", Type::kInt, "", Into<&T::output_len>, "Tokens of each answer.").Range(1),
    Works("n", Type::kInt, "1", Into<&T::n>, "Answers to each prompt.").Range(1),
    Works("num-prompts", Type::kInt, "1000", Into<&T::num_prompts>, "Requests.").Range(1),
    Works("num-warmups", Type::kInt, "0", Into<&T::num_warmups>, "Requests before the clock starts.")
        .Range(0),
    Works("random-input-len", Type::kInt, "1024", Into<&RandomDatasetOptions::input_len>,
          "Mean tokens of a prompt.")
        .Range(1),
    Works("random-output-len", Type::kInt, "128", Into<&RandomDatasetOptions::output_len>,
          "Mean tokens of an answer.")
        .Range(1),
    Works("random-range-ratio", Type::kFloat, "0.0", Into<&RandomDatasetOptions::range_ratio>,
          "Lengths vary evenly within this share of their mean.")
        .Range(0, 0.999999),
    Works("random-prefix-len", Type::kInt, "0", Into<&RandomDatasetOptions::prefix_len>,
          "Tokens that all prompts share.")
        .Alias("prefix-len")
        .Range(0),
    Works("output-json", Type::kString, "", Into<&T::output_json>, "Write vLLM's result fields here."),
    Works("json", Type::kString, "", Into<&T::json>, kJsonHelp),
    Works("disable-detokenize", Type::kTrue, "false", Into<&T::disable_detokenize>,
          "Leave out turning tokens to text."),
    Works("backend", Type::kString, "vllm", nullptr, "What is measured: the engine in this process.")
        .Only("vllm", kNoHf),
    NotBuilt("dataset-path", Type::kString, "", kOnlyRandom),
    NoEffect("no-oversample", Type::kTrue, "false", kOtherData),
    NotBuilt("enable-multimodal-chat", Type::kTrue, "false", kNoVision),
    NotBuilt("custom-output-len", Type::kInt, "", kOtherData),
    NotBuilt("hf-max-batch-size", Type::kInt, "", kNoHf),
    NotBuilt("hf-enable-torch-compile", Type::kTrue, "false", kNoHf),
    NotBuilt("async-engine", Type::kTrue, "false", kNoHf),
    NoEffect("prequeue-requests", Type::kTrue, "false", "All requests are queued before the clock starts."),
    NotBuilt("lora-path", Type::kString, "", kNoLoraBench),
    NotBuilt("lora-assignment", Type::kString, "random", kNoLoraBench),
    NotBuilt("hf-subset", Type::kString, "", kOtherData),
    NotBuilt("hf-split", Type::kString, "", kOtherData),
    NotBuilt("hf-name", Type::kString, "", kOtherData),
    NotBuilt("profile", Type::kTrue, "false", kNoProfile),
    NotBuilt("prefix-repetition-prefix-len", Type::kInt, "", kOtherData),
    NotBuilt("prefix-repetition-suffix-len", Type::kInt, "", kOtherData),
    NotBuilt("prefix-repetition-num-prefixes", Type::kInt, "", kOtherData),
    NotBuilt("prefix-repetition-output-len", Type::kInt, "", kOtherData),
    NotBuilt("random-batch-size", Type::kInt, "1",
             "Batched prompts are for pooling models, which are not built."),
    NoEffect("no-reranker", Type::kTrue, "false", "Rerankers are not built."),
    NoEffect("random-mm-base-items-per-request", Type::kInt, "1", kNoVisionTuning),
    NoEffect("random-mm-num-mm-items-range-ratio", Type::kFloat, "0.0", kNoVisionTuning),
    NoEffect("random-mm-limit-mm-per-prompt", Type::kString, "", kNoVisionTuning),
    NoEffect("random-mm-bucket-config", Type::kString, "", kNoVisionTuning),
    NoEffect("asr-min-audio-len-sec", Type::kFloat, "0.0", kNoVisionTuning),
    NoEffect("asr-max-audio-len-sec", Type::kFloat, "inf", kNoVisionTuning),
    NoEffect("enable-log-requests", Type::kBool, "false", "Requests of a benchmark are not logged."),
};

using S = BenchServeOptions;
constexpr Setting kTarget[] = {
    Works("backend", Type::kString, "openai", Into<&S::backend>,
          "Which API is asked: openai or vllm (completions), openai-chat (chat completions).")
        .Only("openai,vllm,openai-chat", "Only openai, vllm and openai-chat are built."),
    Works("base-url", Type::kString, "", Into<&S::base_url>, "The server, instead of host and port."),
    Works("host", Type::kString, "127.0.0.1", Into<&S::host>, "The server's address."),
    Works("port", Type::kInt, "8000", Into<&S::port>, "The server's port.").Range(1, 65535),
    Works("endpoint", Type::kString, "/v1/completions", Into<&S::endpoint>,
          "The path that is asked; with openai-chat /v1/chat/completions if unset."),
    Works("header", Type::kStrings, "", Into<&S::headers>, "Headers to send, KEY=VALUE."),
    Works("insecure", Type::kTrue, "false", Into<&S::insecure>, "Do not check the server's certificate."),
    Works("model", Type::kString, "", Into<&S::model>, "The model; the server's first if unset."),
    Works("served-model-name", Type::kString, "", Into<&S::served_model_name>,
          "The model's name in requests, if it is another."),
    Works("tokenizer", Type::kString, "", Into<&S::tokenizer>,
          "Folder or hub name whose vocabulary prompts are drawn from; the model's if unset. Completions are "
          "sent as token ids, chats as text."),
    Works("skip-tokenizer-init", Type::kTrue, "false", Into<&S::skip_tokenizer_init>,
          "Load no tokenizer: the vocabulary's size is read from config.json. Not for chats."),
    Works("log-level", Type::kString, "", Into<&S::log_level>, "What is logged; info if unset.")
        .Choices("trace,debug,info,warning,error,critical,TRACE,DEBUG,INFO,WARNING,ERROR,CRITICAL,NOTSET"),
    NoEffect("tokenizer-mode", Type::kString, "auto", "Only tokenizer.json is read."),
    NoEffect("trust-remote-code", Type::kTrue, "false", kNoPython),
    Works("ready-check-timeout-sec", Type::kInt, "0", Into<&S::ready_check_timeout_s>,
          "Wait so long for the server to be ready.")
        .Range(0),
};

constexpr Setting kLoad[] = {
    Works("dataset-name", Type::kString, "random", nullptr, "Where prompts come from: random tokens.")
        .Only("random", kOnlyRandom),
    Works("seed", Type::kInt, "0", Into<&S::seed>, "Seed of prompts and arrival times.")
        .Range(-9.2e18, 9.2e18),
    Works("num-prompts", Type::kInt, "1000", Into<&S::num_prompts>, "Requests.").Range(1),
    Works("num-warmups", Type::kInt, "0", Into<&S::num_warmups>, "Requests before the clock starts.")
        .Range(0),
    Works("input-len", Type::kInt, "", Into<&S::input_len>, "Tokens of each prompt.").Range(1),
    Works("output-len", Type::kInt, "", Into<&S::output_len>, "Tokens of each answer.").Range(1),
    Works("random-input-len", Type::kInt, "1024", Into<&RandomDatasetOptions::input_len>,
          "Mean tokens of a prompt.")
        .Range(1),
    Works("random-output-len", Type::kInt, "128", Into<&RandomDatasetOptions::output_len>,
          "Mean tokens of an answer.")
        .Range(1),
    Works("random-range-ratio", Type::kFloat, "0.0", Into<&RandomDatasetOptions::range_ratio>,
          "Lengths vary evenly within this share of their mean.")
        .Range(0, 0.999999),
    Works("random-prefix-len", Type::kInt, "0", Into<&RandomDatasetOptions::prefix_len>,
          "Tokens that all prompts share.")
        .Range(0),
    Works("request-rate", Type::kFloat, "inf", Into<&S::request_rate>,
          "Requests a second; inf sends all at once.")
        .Range(1e-9),
    Works("burstiness", Type::kFloat, "1.0", Into<&S::burstiness>,
          "1: arrivals as a Poisson process; below it burstier, above it more even (gamma).")
        .Range(1e-9),
    Works("max-concurrency", Type::kInt, "", Into<&S::max_concurrency>, "Most requests at once.").Range(1),
    Works("no-stream", Type::kTrue, "false", Into<&S::no_stream>, "Ask for whole answers."),
    Works("ignore-eos", Type::kTrue, "false", Into<&S::ignore_eos>, "Go on past the end-of-text token."),
    Works("logprobs", Type::kInt, "", Into<&S::logprobs>, "Ask for so many log probabilities.").Range(0),
    Works("temperature", Type::kFloat, "", Into<&SamplingOptions::temperature>, "Sampling.").Range(0),
    Works("top-p", Type::kFloat, "", Into<&SamplingOptions::top_p>, "Sampling.").Range(0, 1),
    Works("top-k", Type::kInt, "", Into<&SamplingOptions::top_k>, "Sampling.").Range(-1),
    Works("min-p", Type::kFloat, "", Into<&SamplingOptions::min_p>, "Sampling.").Range(0, 1),
    Works("repetition-penalty", Type::kFloat, "", Into<&SamplingOptions::repetition_penalty>, "Sampling.")
        .Range(0),
    Works("presence-penalty", Type::kFloat, "", Into<&SamplingOptions::presence_penalty>, "Sampling.")
        .Range(-2, 2),
    Works("frequency-penalty", Type::kFloat, "", Into<&SamplingOptions::frequency_penalty>, "Sampling.")
        .Range(-2, 2),
    Works("extra-body", Type::kJson, "", Into<&S::extra_body>, "Members added to every request."),
    Works("request-id-prefix", Type::kString, "", Into<&S::request_id_prefix>,
          "Start of request ids; random if unset."),
    NoEffect("disable-shuffle", Type::kTrue, "false", "Random prompts need no shuffling."),
    NoEffect("skip-chat-template", Type::kTrue, "false", "The server applies the chat template."),
};

constexpr Setting kMix[] = {
    Works("long-prompt-share", Type::kFloat, "0", Into<&S::long_prompt_share>,
          "This share of the requests, evenly spread, are long prompts among the others, the chats. Results "
          "tell both apart.")
        .Range(0, 1),
    Works("long-input-len", Type::kInt, "4096", Into<&S::long_input_len>, "Mean tokens of a long prompt.")
        .Range(1),
    Works("long-output-len", Type::kInt, "", Into<&S::long_output_len>,
          "Mean tokens of the answer to a long prompt; as for chats if unset.")
        .Range(1),
};

constexpr Setting kPair[] = {
    Works("pd", Type::kTrue, "false", Into<&S::compare_pair>,
          "Start the servers too, of --model: first one with all cores, then a prefill and a decode server "
          "with a router and the same cores between them; send both the same load, and show the results side "
          "by side."),
    Works("prefill-cores", Type::kInt, "", Into<&S::prefill_cores>,
          "With --pd: cores of the prefill server; half of them if unset.")
        .Range(1),
    Works("serve-args", Type::kString, "", Into<&S::serve_args>,
          "With --pd: further words for each `cadre serve`, separated by spaces."),
    Works("prefill-args", Type::kString, "", Into<&S::prefill_args>,
          "With --pd: further words for the prefill server."),
    Works("decode-args", Type::kString, "", Into<&S::decode_args>,
          "With --pd: further words for the decode server."),
    Works("router-args", Type::kString, "", Into<&S::router_args>,
          "With --pd: further words for the router."),
};

constexpr Setting kResult[] = {
    Works("percentile-metrics", Type::kString, "", Into<&S::percentile_metrics>,
          "Comma list of ttft, tpot, itl, e2el that get percentiles; ttft,tpot,itl if unset."),
    Works("metric-percentiles", Type::kString, "99", Into<&S::metric_percentiles>,
          "Comma list of percentiles."),
    Works("goodput", Type::kStrings, "", Into<&S::goodput>,
          "Limits in ms, as ttft:200 tpot:50, that a request must keep to count."),
    Works("save-result", Type::kTrue, "false", Into<&S::save_result>, "Write the result to a file."),
    Works("save-detailed", Type::kTrue, "false", Into<&S::save_detailed>,
          "With every request's times and text."),
    Works("append-result", Type::kTrue, "false", Into<&S::append_result>, "Append to the file."),
    Works("metadata", Type::kStrings, "", Into<&S::metadata>, "KEY=VALUE for the result file."),
    Works("label", Type::kString, "", Into<&S::label>, "Label in the file's name."),
    Works("result-dir", Type::kString, "", Into<&S::result_dir>, "Folder of result files."),
    Works("result-filename", Type::kString, "", Into<&S::result_filename>, "Name of the result file."),
    Works("json", Type::kString, "", Into<&S::json>, kJsonHelp),
    Works("svg", Type::kString, "", Into<&S::svg>,
          "Draw the times between tokens here: how they went, and how they are distributed."),
    Works("disable-tqdm", Type::kTrue, "false", Into<&S::disable_tqdm>, "No progress bar."),
};

constexpr Setting kAbsent[] = {
    NotBuilt("dataset-path", Type::kString, "", kOnlyRandom),
    NoEffect("no-oversample", Type::kTrue, "false", kOtherData),
    NotBuilt("enable-multimodal-chat", Type::kTrue, "false", kNoVision),
    NotBuilt("custom-output-len", Type::kInt, "256", kOtherData),
    NotBuilt("custom-ensure-client-side-data", Type::kTrue, "false", kOtherData),
    NotBuilt("spec-bench-output-len", Type::kInt, "256", kOtherData),
    NotBuilt("spec-bench-category", Type::kString, "", kOtherData),
    NotBuilt("sharegpt-output-len", Type::kInt, "", kOtherData),
    NotBuilt("timed-trace-chunk-hash-size", Type::kInt, "16", kOtherData),
    NotBuilt("timed-trace-sec-multiplier", Type::kFloat, "1", kOtherData),
    NotBuilt("timed-trace-label-timestamp", Type::kString, "timestamp", kOtherData),
    NotBuilt("timed-trace-label-input-length", Type::kString, "input_length", kOtherData),
    NotBuilt("timed-trace-label-output-length", Type::kString, "output_length", kOtherData),
    NotBuilt("timed-trace-label-hash-ids", Type::kString, "hash_ids", kOtherData),
    NotBuilt("blazedit-min-distance", Type::kFloat, "0.0", kOtherData),
    NotBuilt("blazedit-max-distance", Type::kFloat, "1.0", kOtherData),
    NotBuilt("asr-max-audio-len-sec", Type::kFloat, "inf", kNoVision),
    NotBuilt("asr-min-audio-len-sec", Type::kFloat, "0.0", kNoVision),
    NotBuilt("random-batch-size", Type::kInt, "1",
             "Batched prompts are for pooling models, which are not built."),
    NoEffect("no-reranker", Type::kTrue, "false", "Rerankers are not built."),
    NoEffect("random-mm-base-items-per-request", Type::kInt, "1", kNoVisionTuning),
    NoEffect("random-mm-num-mm-items-range-ratio", Type::kFloat, "0.0", kNoVisionTuning),
    NoEffect("random-mm-limit-mm-per-prompt", Type::kString, "", kNoVisionTuning),
    NoEffect("random-mm-bucket-config", Type::kString, "", kNoVisionTuning),
    NotBuilt("hf-subset", Type::kString, "", kOtherData),
    NotBuilt("hf-split", Type::kString, "", kOtherData),
    NotBuilt("hf-name", Type::kString, "", kOtherData),
    NotBuilt("hf-output-len", Type::kInt, "", kOtherData),
    NotBuilt("bfcl-categories", Type::kString, "", kOtherData),
    NotBuilt("prefix-repetition-prefix-len", Type::kInt, "256", kOtherData),
    NotBuilt("prefix-repetition-suffix-len", Type::kInt, "256", kOtherData),
    NotBuilt("prefix-repetition-num-prefixes", Type::kInt, "10", kOtherData),
    NotBuilt("prefix-repetition-output-len", Type::kInt, "128", kOtherData),
    NotBuilt("speed-bench-dataset-subset", Type::kString, "qualitative", kOtherData),
    NotBuilt("speed-bench-output-len", Type::kInt, "4096", kOtherData),
    NotBuilt("speed-bench-category", Type::kString, "", kOtherData),
    NotBuilt("use-beam-search", Type::kTrue, "false", kNoBeams),
    NotBuilt("probe-request-rate", Type::kFloat, "0.0", "Probe requests are not built."),
    NotBuilt("profile", Type::kTrue, "false", kNoProfile),
    NotBuilt("self-timed", Type::kBool, "", "Traces with their own times are not built."),
    NotBuilt("lora-modules", Type::kStrings, "", kNoLoraBench),
    NotBuilt("lora-assignment", Type::kString, "random", kNoLoraBench),
    NotBuilt("ramp-up-strategy", Type::kString, "",
             "A ramp of request rates is not built; use --request-rate."),
    NotBuilt("ramp-up-start-rps", Type::kInt, "",
             "A ramp of request rates is not built; use --request-rate."),
    NotBuilt("ramp-up-end-rps", Type::kInt, "", "A ramp of request rates is not built; use --request-rate."),
    NotBuilt("chat-template-kwargs", Type::kJson, "", "Put chat_template_kwargs into --extra-body."),
    NotBuilt("plot-timeline", Type::kTrue, "false", kNoPlots),
    NoEffect("timeline-itl-thresholds", Type::kString, "25,50", kNoPlots),
    NotBuilt("plot-dataset-stats", Type::kTrue, "false", kNoPlots),
};

}  // namespace

Group BenchLatencyGroup() {
  return {"Latency", "What is measured", kLatency};
}
Group BenchThroughputGroup() {
  return {"Throughput", "What is measured", kThroughput};
}
std::vector<Group> BenchServeGroups() {
  return {{"Target", "Which server", kTarget},
          {"Load", "Which requests", kLoad},
          {"Mix", "Long prompts among chats", kMix},
          {"Pair", "One server beside a pair of prefill and decode", kPair},
          {"Result", "What is written", kResult},
          {"Absent", "Parts of vllm bench serve that Cadre does not have", kAbsent}};
}

}  // namespace cadre::config
