// cadre bench serve: load for a running server, reported as vLLM reports it.
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <ctime>
#include <filesystem>

#include "app/bench_report.h"
#include "app/floor.h"
#include "app/mix_report.h"
#include "app/pair_comparison.h"
#include "app/run.h"
#include "app/serve_load.h"
#include "app/statistics.h"
#include "base/log.h"
#include "config/value.h"
#include "sys/files.h"

namespace cadre::app {
namespace {

constexpr const char* kMeasures[] = {"ttft", "tpot", "itl", "e2el"};

// What the flags say about the report, checked before anything is sent.
struct Plan {
  ReportOptions report;
  Goodput goodput;
  Json metadata = Json::Object();
};

Result<std::vector<std::string>> SelectMeasures(const std::string& list) {
  std::vector<std::string> selected;
  for (const std::string_view word : config::SplitComma(list)) {
    const std::string name = config::Trim(word);
    if (name.empty()) continue;
    if (std::ranges::find(kMeasures, name) == std::end(kMeasures)) {
      return FailParam(Code::kInvalidArgument, "--percentile-metrics",
                       "--percentile-metrics knows ttft, tpot, itl and e2el, not '{}'", name);
    }
    selected.push_back(name);
  }
  return selected;
}

Result<Goodput> ParseGoodput(const std::vector<std::string>& pairs) {
  Goodput goodput;
  for (const std::string& pair : pairs) {
    const size_t colon = std::min(pair.find(':'), pair.size());
    const std::string key = pair.substr(0, colon);
    const auto limit = config::ParseDouble(colon < pair.size() ? pair.substr(colon + 1) : "");
    if ((key != "ttft" && key != "tpot" && key != "e2el") || !limit || !(*limit >= 0)) {
      return FailParam(Code::kInvalidArgument, "--goodput",
                       "--goodput wants ttft:MS, tpot:MS or e2el:MS with a limit of 0 or more, not '{}'",
                       pair);
    }
    goodput[key] = *limit;
  }
  return goodput;
}

Result<Plan> MakePlan(const config::BenchServeOptions& options) {
  Plan plan;
  CADRE_ASSIGN(plan.report.selected, SelectMeasures(options.percentile_metrics.value_or("ttft,tpot,itl")));
  CADRE_ASSIGN(plan.report.percentiles, ParsePercentiles(options.metric_percentiles, "--metric-percentiles"));
  CADRE_ASSIGN(plan.goodput, ParseGoodput(options.goodput));
  plan.report.max_concurrency = options.max_concurrency;
  plan.report.request_rate = options.request_rate;
  for (const std::string& pair : options.metadata) {
    const size_t equal = pair.find('=');
    if (equal == std::string::npos || equal == 0) {
      return FailParam(Code::kInvalidArgument, "--metadata", "--metadata wants KEY=VALUE, not '{}'", pair);
    }
    plan.metadata.Set(pair.substr(0, equal), pair.substr(equal + 1));
  }
  if (!options.extra_body.is_null() && !options.extra_body.is_object()) {
    return FailParam(Code::kInvalidArgument, "--extra-body", "--extra-body wants a JSON object, not {}",
                     options.extra_body.TypeName());
  }
  if (options.save_detailed && !options.save_result && !options.append_result) {
    LogWarning("--save-detailed adds to the result file; --save-result writes one");
  }
  return plan;
}

std::string LocalTime(const char* pattern) {
  const time_t now = time(nullptr);
  tm parts = {};
  localtime_r(&now, &parts);
  char text[64];
  return std::string(text, strftime(text, sizeof text, pattern, &parts));
}

std::string ResultPath(const config::BenchServeOptions& options, const std::string& model,
                       const std::string& date) {
  std::filesystem::path name = options.result_filename.value_or("");
  if (name.empty()) {
    const std::string concurrency =
        options.max_concurrency ? Format("-concurrency{}", *options.max_concurrency) : "";
    name = Format("{}-{}qps{}-{}-{}.json", options.label.value_or(options.backend), options.request_rate,
                  concurrency, model.substr(model.rfind('/') + 1), date);
  }
  return (std::filesystem::path(options.result_dir.value_or("")) / name).string();
}

Status AppendLine(const std::string& path, const Json& value, bool append) {
  FILE* file = std::fopen(path.c_str(), append ? "ae" : "we");
  if (file == nullptr) return Fail(Code::kUnavailable, "cannot write '{}': {}", path, sys::ErrnoText(errno));
  std::string text = value.Dump();
  if (append && std::fseek(file, 0, SEEK_END) == 0 && std::ftell(file) > 0) text = "\n" + text;
  const bool written = std::fwrite(text.data(), 1, text.size(), file) == text.size();
  if (std::fclose(file) != 0 || !written) return Fail(Code::kUnavailable, "cannot write '{}'", path);
  return {};
}

// Every connection is a file; a limit of 1024 is common and 1000 requests at once are the default.
void RaiseFileLimit() {
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

Json FileHead(const config::BenchServeOptions& options, const ServeTarget& target, const Plan& plan,
              const std::string& date) {
  Json head = Json::Object{{"date", date},
                           {"endpoint_type", options.backend},
                           {"backend", options.backend},
                           {"label", options.label ? Json(*options.label) : Json()},
                           {"model_id", options.model.value_or(target.model())},
                           {"tokenizer_id", target.tokenizer_name()},
                           {"num_prompts", options.num_prompts}};
  for (const auto& [key, value] : plan.metadata.AsObject()) head.Set(key, value);
  head.Set("request_rate", std::isfinite(options.request_rate) ? Json(options.request_rate) : Json("inf"));
  head.Set("burstiness", options.burstiness);
  head.Set("max_concurrency", options.max_concurrency ? Json(*options.max_concurrency) : Json());
  return head;
}

void Merge(Json& into, const Json& from) {
  for (const auto& [key, value] : from.AsObject()) into.Set(key, value);
}

// What the server could reach at best, as far as that can be told from outside: it runs on this host, with
// bfloat16 and all CPUs, on the model whose folder is known.
struct LocalFloor {
  deploy::ModelSetup setup;
  ModelCost cost;
  kernels::MachineRates rates;
};

std::optional<LocalFloor> MeasureLocalFloor(const ServeTarget& target) {
  if (!target.is_local()) {
    LogInfo("no floors: the server runs on another host");
    return std::nullopt;
  }
  config::EngineOptions engine;
  engine.model.model = target.folder();
  const auto measure = [&]() -> Result<LocalFloor> {
    LocalFloor floor;
    CADRE_ASSIGN(floor.setup, deploy::DescribeModel(engine));
    CADRE_ASSIGN(floor.cost, ModelCost::Of(floor.setup, engine));
    CADRE_ASSIGN(floor.rates, MeasureMachine(floor.setup, engine));
    return floor;
  };
  auto floor = measure();
  if (floor) return std::move(*floor);
  LogWarning("no floors: {}", floor.error().message);
  return std::nullopt;
}

// Cadre's own fields, after vLLM's.
void AddSpeedsAndFloors(Json& result, const config::BenchServeOptions& options, const ServeMetrics& metrics,
                        const std::optional<LocalFloor>& floor) {
  result.Set("prefill_tokens_per_second", static_cast<double>(metrics.total_input_tokens) / metrics.duration);
  result.Set("decode_tokens_per_second", metrics.output_throughput);
  if (!floor || metrics.completed == 0) return;
  const auto lines = LoadSpeeds({.num_prompts = metrics.completed,
                                 .num_sequences = metrics.completed,
                                 .num_together = options.max_concurrency.value_or(metrics.completed),
                                 .prompt_tokens = metrics.total_input_tokens,
                                 .output_tokens = metrics.total_output_tokens,
                                 .seconds = metrics.duration},
                                floor->cost, floor->rates);
  AddSpeeds(result, lines);
  result.Set("machine", MachineJson(floor->setup, {}, floor->rates));
  std::fputs(SpeedTable(lines, floor->rates).c_str(), stdout);
}

Status WriteResults(const config::BenchServeOptions& options, const ServeTarget& target, const Plan& plan,
                    const ServeMetrics& metrics, const LoadResult& load,
                    const std::optional<LocalFloor>& floor) {
  const std::string date = LocalTime("%Y%m%d-%H%M%S");
  Json result = FileHead(options, target, plan, date);
  Merge(result, ServeResult(metrics, load, plan.report, options.save_detailed));
  if (options.long_prompt_share > 0) Merge(result, MixResult(load, plan.report));
  if (options.save_result || options.append_result) {
    const std::string path = ResultPath(options, target.model(), date);
    CADRE_TRY(AppendLine(path, result, options.append_result));
    LogInfo("wrote {}", path);
  }
  if (!options.json) return {};
  AddSpeedsAndFloors(result, options, metrics, floor);
  return WriteJsonFile(*options.json, result);
}

Status CheckAlone(const config::BenchServeOptions& options) {
  for (const auto& [flag, given] : {std::pair("--prefill-cores", options.prefill_cores.has_value()),
                                    {"--serve-args", !options.serve_args.empty()},
                                    {"--prefill-args", !options.prefill_args.empty()},
                                    {"--decode-args", !options.decode_args.empty()},
                                    {"--router-args", !options.router_args.empty()}}) {
    if (given)
      return FailParam(Code::kInvalidArgument, flag, "{} is about servers that --pd starts; add --pd", flag);
  }
  return {};
}

Status Run(const config::BenchServeOptions& options) {
  CADRE_ASSIGN(const Plan plan, MakePlan(options));
  RaiseFileLimit();
  if (options.compare_pair) return CompareWithPair(options, plan.report, plan.goodput);
  CADRE_TRY(CheckAlone(options));
  if (options.result_dir) {
    std::error_code ec;
    std::filesystem::create_directories(*options.result_dir, ec);
    if (ec) {
      return FailParam(Code::kInvalidArgument, "--result-dir", "--result-dir: cannot make '{}': {}",
                       *options.result_dir, ec.message());
    }
  }
  CADRE_TRY(CheckWritable(options.json, "--json"));
  CADRE_TRY(CheckWritable(options.svg, "--svg"));
  CADRE_TRY(CheckLoad(options));
  CADRE_ASSIGN(const auto target, ServeTarget::Connect(options));
  ServeLoad bench(options, *target);
  std::optional<LocalFloor> floor;
  if (options.json) floor = MeasureLocalFloor(*target);  // while the server has nothing to do
  CADRE_TRY(bench.WarmUp());
  LoadRun run{.name = "this server", .commands = {}, .load = bench.Measure(), .recomputed = {}};
  const LoadResult& load = run.load;
  const ServeMetrics metrics = Summarize(load, plan.goodput);
  ShowErrors(load);
  std::fputs(ServeTable(metrics, plan.report).c_str(), stdout);
  if (options.long_prompt_share > 0) std::fputs(MixTable({run}).c_str(), stdout);
  CADRE_TRY(WriteLatencyPicture(options, target->model(), {run}));
  CADRE_TRY(WriteResults(options, *target, plan, metrics, load, floor));
  if (metrics.completed == 0) return Fail(Code::kUnavailable, "all {} requests failed", metrics.failed);
  return {};
}

}  // namespace

int BenchServe(Args args, const config::Environment& env) {
  return RunParsed(config::ParseBenchServe, args, env, Run);
}

}  // namespace cadre::app
