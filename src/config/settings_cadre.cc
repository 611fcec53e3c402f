// Cadre's own flags, and which groups belong to which command.
#include <algorithm>

#include "config/settings.h"

namespace cadre::config {
namespace {

constexpr Setting kCadre[] = {
    Works("threads", Type::kInt, "", Into<&CpuOptions::threads>,
          "Worker threads of each rank. If unset: the CPUs that VLLM_CPU_OMP_THREADS_BIND gives it.")
        .Range(1, 4096),
    Works("prefill-all2all-backend", Type::kString, "", Into<&ParallelOptions::prefill_all2all_backend>,
          "An --all2all-backend for steps with prompt rows; --all2all-backend if unset.")
        .Choices(kAll2AllBuilt),
    Works("decode-all2all-backend", Type::kString, "", Into<&ParallelOptions::decode_all2all_backend>,
          "An --all2all-backend for steps in which no rank has more than one token of a sequence; "
          "--all2all-backend if unset.")
        .Choices(kAll2AllBuilt),
    Works(
        "all2all-fp8-dispatch", Type::kBool, "false", Into<&ParallelOptions::all2all_fp8_dispatch>,
        "deepep_low_latency: rows travel to their experts as fp8 (e4m3, a scale per 128 channels), half the "
        "bytes of bfloat16. A value is off by up to 1/16 of itself; see docs/exchange.md."),
    Works("eplb-record", Type::kString, "", Into<&EplbOptions::record_file>,
          "Rank 0 keeps the load of the window in this file, for --eplb-init and `cadre inspect --load`."),
    Works("eplb-init", Type::kString, "", Into<&EplbOptions::init_file>,
          "A recorded load: experts are placed by it at the start, so that a restart begins balanced."),
    Works(
        "fabric-transport", Type::kString, "auto", Into<&ParallelOptions::fabric_transport>,
        "How nodes exchange rows: tcp, ucx, or auto, the better one of those that all nodes have (ucx where "
        "there is RDMA).")
        .Choices("auto,tcp,ucx"),
    Works("fabric-connections", Type::kInt, "1", Into<&ParallelOptions::fabric_connections>,
          "TCP connections between two nodes for each network address; large messages are split over them.")
        .Range(1, 16),
    Works(
        "weight-update-copy", Type::kBool, "false", Into<&ModelOptions::weight_update_copy>,
        "Keep the old weights in memory while /update_weights writes new ones, so that a failure in the "
        "middle "
        "restores them. Takes the weights' memory a second time; without it the last folder is read again."),
    Works("log-level", Type::kString, "", Into<&EngineOptions::log_level>,
          "What is logged: trace, debug, info, warning, error; VLLM_LOGGING_LEVEL or info if unset.")
        .Choices("trace,debug,info,warning,error,critical,TRACE,DEBUG,INFO,WARNING,ERROR,CRITICAL,NOTSET"),
};

constexpr Setting kGenerate[] = {
    Works("prompt", Type::kString, "", Into<&GenerateOptions::prompt>,
          "Answer this and stop. Without it: a chat on the terminal."),
    Works("prompt-token-ids", Type::kJsonList, "[]", Into<&GenerateOptions::prompt_token_ids>,
          "The prompt as a JSON list of token ids."),
    Works("raw", Type::kBool, "false", Into<&GenerateOptions::raw>,
          "Send the prompt as it is, without the chat template."),
    Works("system", Type::kString, "", Into<&GenerateOptions::system>, "A system message in front."),
    Works("chat-template", Type::kString, "", Into<&GenerateOptions::chat_template>,
          "File of a chat template, or the template itself."),
    Works("max-tokens", Type::kHumanInt, "256", Into<&GenerateOptions::max_tokens>,
          "Most tokens of the answer.")
        .Range(1, 1 << 30),
    Works("stop", Type::kAppended, "", Into<&GenerateOptions::stop>,
          "Text that ends the answer; may be given again."),
    Works("ignore-eos", Type::kBool, "false", Into<&GenerateOptions::ignore_eos>,
          "Go on past the end-of-text token."),
    Works("temperature", Type::kFloat, "", Into<&SamplingOptions::temperature>,
          "0 takes the likeliest token.")
        .Range(0),
    Works("top-p", Type::kFloat, "", Into<&SamplingOptions::top_p>,
          "Smallest set of tokens with this much probability.")
        .Range(0, 1),
    Works("top-k", Type::kInt, "", Into<&SamplingOptions::top_k>,
          "Only so many likeliest tokens; 0 or -1: all.")
        .Range(-1),
    Works("min-p", Type::kFloat, "", Into<&SamplingOptions::min_p>,
          "Least probability, as a share of the largest.")
        .Range(0, 1),
    Works("repetition-penalty", Type::kFloat, "", Into<&SamplingOptions::repetition_penalty>,
          "Above 1 discourages repetition.")
        .Range(0),
    Works("presence-penalty", Type::kFloat, "", Into<&SamplingOptions::presence_penalty>,
          "Penalty for tokens that occurred.")
        .Range(-2, 2),
    Works("frequency-penalty", Type::kFloat, "", Into<&SamplingOptions::frequency_penalty>,
          "Penalty per occurrence.")
        .Range(-2, 2),
};

constexpr Setting kInspect[] = {
    Works("tensors", Type::kBool, "false", Into<&InspectOptions::tensors>,
          "List every tensor with type, shape and place."),
    Works("json", Type::kBool, "false", Into<&InspectOptions::json>, "Print one JSON object."),
    Works(
        "load", Type::kString, "", Into<&InspectOptions::load>,
        "Draw how the load lies on experts and ranks instead: a file of --eplb-record, or a running server "
        "(http://HOST:PORT). A file is looked at with the flags of the deployment (-dp, --eplb-config ...)."),
    Works("svg", Type::kString, "", Into<&InspectOptions::svg>,
          "With --load: a picture, written to this file."),
    Works("html", Type::kString, "", Into<&InspectOptions::html>,
          "With --load: the same as a page that tells each cell's numbers, written to this file."),
};

using A = BenchA2aOptions;
constexpr Setting kBenchA2a[] = {
    Works("ranks", Type::kInt, "2", Into<&A::ranks>, "Ranks, each a process.").Range(2, 64),
    Works("backends", Type::kString,
          "allgather_reducescatter,naive,pplx,deepep_high_throughput,deepep_low_latency,flashinfer_all2allv,"
          "mori",
          Into<&A::backends>, "Which exchanges, names of --all2all-backend with commas between."),
    Works("sizes", Type::kString, "1024,14336,131072,1048576,8388608", Into<&A::sizes>,
          "Bytes to each peer, of the first table."),
    Works("rows", Type::kString, "1,8,32,128,1024", Into<&A::rows>,
          "Rows of each rank, of the second table."),
    Works("hidden", Type::kInt, "7168", Into<&A::hidden>, "Channels of a row in the second table; bfloat16.")
        .Range(1, 1 << 20),
    Works("top-k", Type::kInt, "8", Into<&A::top_k>, "Experts of a row in the second table.").Range(1, 64),
    Works("experts", Type::kInt, "256", Into<&A::experts>, "Experts in the second table.").Range(1, 65536),
    Works("num-iters", Type::kInt, "300", Into<&A::num_iters>,
          "Rounds of each measurement; a tenth where long.")
        .Range(20, 1 << 20),
    Works("repeats", Type::kInt, "3", Into<&A::repeats>,
          "How often each is measured; the best median counts.")
        .Range(1, 1000),
    Works("gloo-python", Type::kString, "python3", Into<&A::gloo_python>,
          "A Python with torch, whose Gloo is measured as well."),
    Works("count-only", Type::kTrue, "false", Into<&A::count_only>,
          "Measure nothing: print the bytes that each exchange moves in a step, worked out from random "
          "choices."),
    Works("hosts", Type::kString, "1,2,4,8,16,32,64", Into<&A::hosts>, "Numbers of hosts for --count-only."),
    Works("ranks-per-host", Type::kInt, "8", Into<&A::ranks_per_host>, "Ranks of each host for --count-only.")
        .Range(1, 64),
    Works("layers", Type::kInt, "58", Into<&A::layers>, "Layers with experts, for --count-only.")
        .Range(1, 100000),
    Works("json", Type::kString, "", Into<&A::json>, "Write a JSON object with all numbers here."),
};

using E = BenchEplbOptions;
constexpr Setting kBenchEplb[] = {
    Works("exponent", Type::kFloat, "1.0", Into<&E::exponent>,
          "How much hotter the first experts are: expert e is chosen with weight 1 / (1 + e)^exponent.")
        .Range(0, 16),
    Works("drift", Type::kInt, "0", Into<&E::drift>,
          "Every so many steps the heat moves on by a third of the experts; 0: it stays.")
        .Range(0, 1 << 30),
    Works("eplb", Type::kString, R"({"window_size":100,"step_interval":200,"num_redundant_experts":8})",
          Into<&E::eplb>, "--eplb-config of the balanced run."),
    Works("repeats", Type::kInt, "1", Into<&E::repeats>, "How often each is measured; the median counts.")
        .Range(1, 1000),
};

using D = DemoOptions;
constexpr Setting kDemo[] = {
    Works("nproc-per-node", Type::kInt, "2", Into<&D::nproc_per_node>, "Ranks, each a process.").Range(1, 64),
    Works("force-cpu", Type::kTrue, "false", Into<&D::force_cpu>,
          "Compute on the CPU without looking for a GPU."),
    Works("python", Type::kTrue, "false", Into<&D::python>,
          "Run examples/expert_parallel/demo.py, which does the same over the Python package, once for each "
          "rank."),
    Works("model", Type::kString, "", Into<&D::model>,
          "Show the first expert layer of this model (a folder, or a hub name in the local cache) on the "
          "embeddings "
          "of its tokens, instead of a layer drawn from the seed."),
    Works("prompt", Type::kString, "", Into<&D::prompt>, "The text whose tokens are shown, with --model."),
    Works("all2all-backend", Type::kString, "allgather_reducescatter", Into<&D::all2all_backend>,
          "How rows travel between ranks, see docs/exchange.md.")
        .Choices(kAll2AllBuilt),
    Works("num-experts", Type::kInt, "8", Into<&D::num_experts>, "Experts of the layer.").Range(1, 4096),
    Works("top-k", Type::kInt, "2", Into<&D::top_k>, "Experts of each token.").Range(1, 64),
    Works("num-tokens", Type::kInt, "6", Into<&D::num_tokens>, "Tokens of each rank.").Range(1, 1 << 16),
    Works("hidden-size", Type::kInt, "128", Into<&D::hidden_size>, "Numbers of a token's row.")
        .Range(1, 1 << 16),
    Works("intermediate-size", Type::kInt, "256", Into<&D::intermediate_size>,
          "Numbers in the middle of an expert.")
        .Range(1, 1 << 18),
    Works("expert-placement-strategy", Type::kString, "linear", Into<&D::placement>,
          "Rank 0 holds the first experts (linear), or every expert goes to the next rank (round_robin).")
        .Choices("linear,round_robin"),
    Works("seed", Type::kInt, "0", Into<&D::seed>, "Of the weights and tokens.").Range(0),
    Works("timeout", Type::kFloat, "60", Into<&D::timeout_s>, "Seconds that a rank waits for the others.")
        .Range(0.1, 86400),
    Works("json", Type::kString, "", Into<&D::json>, "Write a JSON object with all numbers here."),
};

std::vector<Group> EngineGroups() {
  std::vector<Group> groups = ModelGroups();
  for (auto more : {ParallelGroups(), MemoryGroups()}) groups.insert(groups.end(), more.begin(), more.end());
  return groups;
}

void Append(std::vector<Group>& groups, const std::vector<Group>& more) {
  groups.insert(groups.end(), more.begin(), more.end());
}

std::vector<Group> MakeGroups(Command command) {
  std::vector<Group> groups;
  switch (command) {
    case Command::kServe:
      groups = FrontGroups();
      break;
    case Command::kGenerate:
      groups = {GenerateGroup()};
      break;
    case Command::kInspect:
      groups = {InspectGroup()};
      break;
    case Command::kBenchLatency:
      groups = {BenchLatencyGroup()};
      break;
    case Command::kBenchThroughput:
      groups = {BenchThroughputGroup()};
      break;
    case Command::kBenchServe:
      return BenchServeGroups();
    case Command::kBenchA2a:
      return {BenchA2aGroup()};
    case Command::kBenchEplb:
      groups = {BenchEplbGroup(), BenchThroughputGroup()};
      break;
    case Command::kDemo:
      return {DemoGroup()};
    case Command::kBenchStep:
      groups = {BenchStepGroup()};
      break;
    case Command::kDoctor:
      return {DoctorGroup()};
    case Command::kRouter:
      return RouterGroups();
    case Command::kPlan:
      groups = {PlanGroup()};
      break;
  }
  Append(groups, EngineGroups());
  Append(groups, CadreGroups());
  Append(groups, AbsentGroups());
  return groups;
}

}  // namespace

std::vector<Group> CadreGroups() {
  return {{"Cadre", "Cadre's own", kCadre}};
}
Group GenerateGroup() {
  return {"Generate", "What to generate", kGenerate};
}
Group BenchA2aGroup() {
  return {"Exchange", "What is measured", kBenchA2a};
}
Group BenchEplbGroup() {
  return {"Balancing", "How hot, and how it is balanced", kBenchEplb};
}
Group DemoGroup() {
  return {"Demo", "What is shown", kDemo};
}
Group InspectGroup() {
  return {"Inspect", "What to show", kInspect};
}

const std::vector<Group>& GroupsOf(Command command) {
  static const auto tables = [] {
    std::vector<std::vector<Group>> made;
    for (Command each : kAllCommands) made.push_back(MakeGroups(each));
    return made;
  }();
  return tables[static_cast<size_t>(command)];
}

std::string_view CommandName(Command command) {
  switch (command) {
    case Command::kServe:
      return "serve";
    case Command::kGenerate:
      return "generate";
    case Command::kInspect:
      return "inspect";
    case Command::kBenchLatency:
      return "bench latency";
    case Command::kBenchThroughput:
      return "bench throughput";
    case Command::kBenchServe:
      return "bench serve";
    case Command::kBenchA2a:
      return "bench a2a";
    case Command::kBenchEplb:
      return "bench eplb";
    case Command::kDemo:
      return "demo";
    case Command::kBenchStep:
      return "bench step";
    case Command::kDoctor:
      return "doctor";
    case Command::kRouter:
      return "router";
    case Command::kPlan:
      return "plan";
  }
  return "";
}

const Setting* FindSetting(Command command, std::string_view name) {
  for (const Group& group : GroupsOf(command)) {
    for (const Setting& setting : group.settings) {
      if (setting.name == name || (!name.empty() && setting.alias == name)) return &setting;
    }
  }
  return nullptr;
}

std::vector<const JsonKey*> JsonKeysOf(std::string_view option) {
  std::vector<const JsonKey*> keys;
  for (const JsonKey& key : JsonKeys()) {
    if (key.option == option) keys.push_back(&key);
  }
  return keys;
}

const JsonKey* FindJsonKey(std::string_view option, std::string_view key) {
  for (const JsonKey* each : JsonKeysOf(option)) {
    if (each->key == key) return each;
  }
  return nullptr;
}

}  // namespace cadre::config
