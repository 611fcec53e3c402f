#include "config/parse.h"

#include <algorithm>
#include <cctype>

#include "config/config_file.h"
#include "config/help.h"
#include "config/kv_transfer.h"
#include "config/launch.h"
#include "config/lora.h"
#include "config/plan.h"
#include "config/router.h"
#include "config/settle.h"
#include "config/validate.h"
#include "config/value.h"

namespace cadre::config {
namespace {

/// The model is a word, a flag or a line of the file; vLLM lets the word win.
Status SettleModel(Command command, const std::vector<std::string>& words, const Settlement& settled,
                   ModelOptions* model) {
  if (command == Command::kRouter) return {};  // its words are workers
  const size_t allowed = model ? 1 : 0;
  if (words.size() > allowed) {
    return Fail(Code::kInvalidArgument, "unexpected word '{}'; cadre {} takes {}",
                words[allowed].substr(0, 80), CommandName(command),
                model ? "one model and flags" : "flags only");
  }
  if (!model) return {};
  if (!words.empty()) {
    const Given* flag = settled.Find("model");
    if (flag && ValueText(flag->value) != words[0]) {
      return FailParam(Code::kInvalidArgument, "--model", "two models: '{}', and '{}' from {}; name one",
                       words[0], ValueText(flag->value), flag->source);
    }
    model->model = words[0];
  }
  // A recorded load says itself what it is of.
  if (command == Command::kInspect && settled.Find("load") != nullptr) return {};
  if (model->model.empty()) {
    return FailParam(
        Code::kInvalidArgument, "model",
        "no model: cadre {} wants a folder or a hub name as its first word, as in cadre {} models/demo",
        CommandName(command), CommandName(command));
  }
  return {};
}

void SettleHub(const Environment& env, ModelOptions& model) {
  if (!model.hub_cache.empty()) {
    model.hub_cache_source = "--download-dir";
    return;
  }
  HubCache cache = FindHubCache(env);
  model.hub_cache = std::move(cache.folder);
  model.hub_cache_source = std::move(cache.source);
}

Status SettleCpu(const Environment& env, CpuOptions& cpu) {
  if (const auto bind = Get(env, "VLLM_CPU_OMP_THREADS_BIND"); !bind.empty())
    CADRE_TRY(ParseBinding(bind, cpu));
  // Launchers set OMP_NUM_THREADS=1 for other programs; vLLM listens to it only when it does not bind threads
  // itself.
  const std::string_view omp = Get(env, "OMP_NUM_THREADS");
  if (cpu.bind == CpuOptions::Bind::kNobind && !cpu.threads && !omp.empty()) {
    CADRE_ASSIGN(const int64_t threads, ParseInt(Trim(omp)));
    cpu.threads = static_cast<int>(threads);  // its row has checked the range
  }
  return {};
}

// Balancing wants whole experts: --enable-eplb brings --enable-expert-parallel with it, as the documents'
// example expects, unless that was refused in so many words.
void SettleEplb(const Settlement& settled, ParallelOptions& parallel, std::vector<Notice>& notices) {
  const Given* config = settled.Find("eplb-config");
  if (!parallel.enable_eplb) {
    if (config != nullptr) notices.push_back({false, "--eplb-config: no effect without --enable-eplb"});
    return;
  }
  if (!parallel.enable_expert_parallel && settled.Find("enable-expert-parallel") == nullptr) {
    parallel.enable_expert_parallel = true;
    notices.push_back({false, "--enable-eplb: --enable-expert-parallel is switched on with it"});
  }
  if (parallel.expert_parallel_size() == 1) {
    notices.push_back(
        {false,
         "--enable-eplb: one rank holds every expert, so there is nothing to balance and no copies "
         "are made; EPLB is for --data-parallel-size or --tensor-parallel-size above 1"});
  }
  for (const auto& [key, reason] :
       {std::pair("communicator", "weights travel over shared memory and the fabric"),
        {"enable_migration_batching", "layers move together while spare places last"}}) {
    if (config != nullptr && config->value.Find(key) != nullptr)
      notices.push_back({false, Format("--eplb-config.{}: no effect here; {}", key, reason)});
  }
}

// `launched`: a launcher's variables say which part of the deployment this process is.
Status SettleEngine(const Environment& env, const Settlement& settled, bool launched, EngineOptions& engine,
                    std::vector<Notice>& notices) {
  SettleHub(env, engine.model);
  CADRE_TRY(SettleCpu(env, engine.cpu));
  if (engine.model.dtype == "float") engine.model.dtype = "float32";
  if (engine.model.dtype == "half") engine.model.dtype = "float16";
  if (const Given* backend = settled.Find("all2all-backend"))
    engine.parallel.all2all_backend_source = backend->source;
  if (const Given* address = settled.Find("data-parallel-address"))
    engine.parallel.data_parallel_address_source = address->source;
  SettleEplb(settled, engine.parallel, notices);
  CADRE_TRY(SettleKvTransfer(settled, engine.kv_transfer, notices));
  CADRE_TRY(SettleLora(engine.model, engine.lora));
  if (launched) CADRE_TRY(TakeLauncher(env, engine.parallel, notices));
  return CheckEngine(engine);
}

void LowerCase(std::string& text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
}

Targets EngineTargets(EngineOptions& engine) {
  Targets targets{};
  std::get<ModelOptions*>(targets) = &engine.model;
  std::get<CacheOptions*>(targets) = &engine.cache;
  std::get<SchedulerOptions*>(targets) = &engine.scheduler;
  std::get<ParallelOptions*>(targets) = &engine.parallel;
  std::get<EplbOptions*>(targets) = &engine.parallel.eplb;
  std::get<KvTransferOptions*>(targets) = &engine.kv_transfer;
  std::get<LoraOptions*>(targets) = &engine.lora;
  std::get<CpuOptions*>(targets) = &engine.cpu;
  std::get<EngineOptions*>(targets) = &engine;
  return targets;
}

struct Outcome {
  std::vector<Notice> notices;
  std::optional<std::string> help;
};

Result<Outcome> Parse(Command command, std::span<const std::string> args, const Environment& env,
                      const Targets& targets) {
  CADRE_ASSIGN(CommandLine line, ParseCommandLine(command, args));
  if (line.help) {
    CADRE_ASSIGN(std::string text, HelpText(command, *line.help));
    return Outcome{{}, std::move(text)};
  }
  Settlement settled(command);
  CADRE_TRY(settled.TakeEnvironment(env));
  if (line.config_file) {
    CADRE_ASSIGN(const Json file, LoadConfigFile(*line.config_file));
    CADRE_TRY(settled.TakeFile(file, *line.config_file));
  }
  for (const Given& given : line.given) CADRE_TRY(settled.Take(given));
  CADRE_TRY(settled.Fill(targets));

  std::vector<Notice> notices;
  auto* engine = std::get<EngineOptions*>(targets);
  CADRE_TRY(SettleModel(command, line.words, settled, engine ? &engine->model : nullptr));
  if (auto* router = std::get<RouterOptions*>(targets)) {
    router->worker_urls.insert(router->worker_urls.begin(), line.words.begin(), line.words.end());
    CADRE_TRY(SettleRouter(*router, notices));
  }
  if (auto* plan = std::get<PlanOptions*>(targets)) CADRE_TRY(SettlePlan(settled, *plan));
  if (engine) {
    LowerCase(engine->log_level);
    CADRE_TRY(SettleEngine(env, settled, command != Command::kPlan, *engine, notices));
  }
  if (auto* http = std::get<HttpOptions*>(targets)) CADRE_TRY(CheckHttp(*http));
  CADRE_TRY(settled.Refuse());

  const auto* serve = std::get<ServeOptions*>(targets);
  if (serve && serve->fail_on_environ_validation && !settled.unknown_variables().empty()) {
    const std::string& name = settled.unknown_variables().front();
    return FailParam(Code::kInvalidArgument, name, "Unknown vLLM environment variable detected: {}", name);
  }
  std::ranges::move(settled.Notices(), std::back_inserter(notices));
  return Outcome{std::move(notices), {}};
}

template <typename Options>
Result<Parsed<Options>> Finish(Options options, Result<Outcome> outcome) {
  if (!outcome) return std::unexpected(std::move(outcome).error());
  if (outcome->help) options = Options();
  return Parsed<Options>{std::move(options), std::move(outcome->notices), std::move(outcome->help)};
}

}  // namespace

Result<Parsed<ServeOptions>> ParseServe(std::span<const std::string> args, const Environment& env) {
  ServeOptions options;
  Targets targets = EngineTargets(options.engine);
  std::get<HttpOptions*>(targets) = &options.http;
  std::get<ApiOptions*>(targets) = &options.api;
  std::get<ServeOptions*>(targets) = &options;
  auto outcome = Parse(Command::kServe, args, env, targets);
  return Finish(std::move(options), std::move(outcome));
}

Result<Parsed<GenerateOptions>> ParseGenerate(std::span<const std::string> args, const Environment& env) {
  GenerateOptions options;
  Targets targets = EngineTargets(options.engine);
  std::get<SamplingOptions*>(targets) = &options.sampling;
  std::get<GenerateOptions*>(targets) = &options;
  auto outcome = Parse(Command::kGenerate, args, env, targets);
  if (outcome && options.prompt && !options.prompt_token_ids.empty()) {
    return FailParam(Code::kInvalidArgument, "--prompt",
                     "--prompt and --prompt-token-ids are two prompts; give one");
  }
  return Finish(std::move(options), std::move(outcome));
}

Result<Parsed<InspectOptions>> ParseInspect(std::span<const std::string> args, const Environment& env) {
  InspectOptions options;
  Targets targets = EngineTargets(options.engine);
  std::get<InspectOptions*>(targets) = &options;
  auto outcome = Parse(Command::kInspect, args, env, targets);
  if (outcome && !outcome->help) {
    if (options.load && options.tensors)
      return FailParam(Code::kInvalidArgument, "--tensors",
                       "--tensors lists a model's tensors, and --load draws a load; give one");
    for (const auto& [file, flag] : {std::pair(&options.svg, "--svg"), {&options.html, "--html"}})
      if (*file && !options.load)
        return FailParam(Code::kInvalidArgument, flag, "{} wants --load FILE or --load URL: what it draws",
                         flag);
  }
  return Finish(std::move(options), std::move(outcome));
}

Result<Parsed<BenchLatencyOptions>> ParseBenchLatency(std::span<const std::string> args,
                                                      const Environment& env) {
  BenchLatencyOptions options;
  Targets targets = EngineTargets(options.engine);
  std::get<BenchLatencyOptions*>(targets) = &options;
  auto outcome = Parse(Command::kBenchLatency, args, env, targets);
  return Finish(std::move(options), std::move(outcome));
}

Result<Parsed<BenchThroughputOptions>> ParseBenchThroughput(std::span<const std::string> args,
                                                            const Environment& env) {
  BenchThroughputOptions options;
  Targets targets = EngineTargets(options.engine);
  std::get<BenchThroughputOptions*>(targets) = &options;
  std::get<RandomDatasetOptions*>(targets) = &options.random;
  auto outcome = Parse(Command::kBenchThroughput, args, env, targets);
  return Finish(std::move(options), std::move(outcome));
}

Result<Parsed<BenchEplbOptions>> ParseBenchEplb(std::span<const std::string> args, const Environment& env) {
  BenchEplbOptions options;
  Targets targets = EngineTargets(options.throughput.engine);
  std::get<BenchEplbOptions*>(targets) = &options;
  std::get<BenchThroughputOptions*>(targets) = &options.throughput;
  std::get<RandomDatasetOptions*>(targets) = &options.throughput.random;
  auto outcome = Parse(Command::kBenchEplb, args, env, targets);
  return Finish(std::move(options), std::move(outcome));
}

Result<Parsed<BenchA2aOptions>> ParseBenchA2a(std::span<const std::string> args, const Environment& env) {
  BenchA2aOptions options;
  Targets targets{};
  std::get<BenchA2aOptions*>(targets) = &options;
  auto outcome = Parse(Command::kBenchA2a, args, env, targets);
  return Finish(std::move(options), std::move(outcome));
}

Result<Parsed<DemoOptions>> ParseDemo(std::span<const std::string> args, const Environment& env) {
  DemoOptions options;
  Targets targets{};
  std::get<CpuOptions*>(targets) = &options.cpu;
  std::get<DemoOptions*>(targets) = &options;
  auto outcome = Parse(Command::kDemo, args, env, targets);
  options.hub_cache = FindHubCache(env).folder;
  return Finish(std::move(options), std::move(outcome));
}

Result<Parsed<BenchStepOptions>> ParseBenchStep(std::span<const std::string> args, const Environment& env) {
  BenchStepOptions options;
  Targets targets = EngineTargets(options.engine);
  std::get<BenchStepOptions*>(targets) = &options;
  auto outcome = Parse(Command::kBenchStep, args, env, targets);
  const ParallelOptions& p = options.engine.parallel;
  if (outcome && (p.tensor_parallel_size != 1 || p.data_parallel_size != 1 || p.enable_expert_parallel)) {
    return FailParam(Code::kInvalidArgument, "--ranks",
                     "cadre bench step makes its ranks from --ranks, with data and expert parallelism; leave "
                     "-tp, -dp and -ep out");
  }
  return Finish(std::move(options), std::move(outcome));
}

Result<Parsed<DoctorOptions>> ParseDoctor(std::span<const std::string> args, const Environment& env) {
  DoctorOptions options;
  Targets targets{};
  std::get<ParallelOptions*>(targets) = &options.parallel;
  std::get<DoctorOptions*>(targets) = &options;
  auto outcome = Parse(Command::kDoctor, args, env, targets);
  if (outcome && options.listen && !options.peers.empty()) {
    return FailParam(Code::kInvalidArgument, "--listen",
                     "--listen answers other doctors and --peer asks them; give one of them on each host");
  }
  return Finish(std::move(options), std::move(outcome));
}

Result<Parsed<PlanOptions>> ParsePlan(std::span<const std::string> args, const Environment& env) {
  PlanOptions options;
  Targets targets = EngineTargets(options.engine);
  std::get<PlanOptions*>(targets) = &options;
  auto outcome = Parse(Command::kPlan, args, env, targets);
  options.engine.cpu = {.threads = options.engine.cpu.threads, .isa = options.engine.cpu.isa};
  return Finish(std::move(options), std::move(outcome));
}

Result<Parsed<RouterOptions>> ParseRouter(std::span<const std::string> args, const Environment& env) {
  RouterOptions options;
  Targets targets{};
  std::get<RouterOptions*>(targets) = &options;
  auto outcome = Parse(Command::kRouter, args, env, targets);
  options.hub_cache = FindHubCache(env).folder;
  LowerCase(options.log_level);
  return Finish(std::move(options), std::move(outcome));
}

Result<Parsed<BenchServeOptions>> ParseBenchServe(std::span<const std::string> args, const Environment& env) {
  BenchServeOptions options;
  Targets targets{};
  std::get<SamplingOptions*>(targets) = &options.sampling;
  std::get<RandomDatasetOptions*>(targets) = &options.random;
  std::get<BenchServeOptions*>(targets) = &options;
  auto outcome = Parse(Command::kBenchServe, args, env, targets);
  options.hub_cache = FindHubCache(env).folder;
  LowerCase(options.log_level);
  return Finish(std::move(options), std::move(outcome));
}

}  // namespace cadre::config
