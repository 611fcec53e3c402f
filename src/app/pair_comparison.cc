#include "app/pair_comparison.h"

#include <cmath>

#include "app/bench_report.h"
#include "app/latency_picture.h"
#include "app/serve_load.h"
#include "app/server_set.h"
#include "base/log.h"
#include "sys/cpu.h"
#include "sys/files.h"

namespace cadre::app {
namespace {

constexpr int64_t kReadySeconds = 600;  // a large model is loaded meanwhile

std::string RateText(const config::BenchServeOptions& options) {
  const std::string rate = std::isfinite(options.request_rate)
                               ? Format("{:.3g} requests a second", options.request_rate)
                               : "all requests at once";
  return options.max_concurrency ? Format("{}, at most {} at a time", rate, *options.max_concurrency) : rate;
}

std::string LoadText(const config::BenchServeOptions& options) {
  const auto chats = Effective(options.random, options.input_len, options.output_len);
  const LongPrompts longs = LongPromptsOf(options);
  std::string text = Format("{} requests, {}: {} tokens in, {} out", options.num_prompts, RateText(options),
                            chats.input_len, chats.output_len);
  if (longs.share > 0) {
    text += Format("; {:.3g} % of them {} in, {} out", longs.share * 100, longs.input_len, longs.output_len);
  }
  return text;
}

Status CheckFlags(const config::BenchServeOptions& options) {
  if (options.base_url) {
    return FailParam(Code::kInvalidArgument, "--base-url",
                     "--pd starts its own servers; --base-url names one that runs already");
  }
  const config::BenchServeOptions plain;
  for (const auto& [flag, given] : {std::pair("--host", options.host != plain.host),
                                    {"--port", options.port != plain.port},
                                    {"--save-result", options.save_result},
                                    {"--append-result", options.append_result},
                                    {"--result-dir", options.result_dir.has_value()},
                                    {"--result-filename", options.result_filename.has_value()},
                                    {"--label", options.label.has_value()},
                                    {"--metadata", !options.metadata.empty()}}) {
    if (given) {
      return FailParam(Code::kInvalidArgument, flag,
                       "{} has no meaning with --pd, which starts servers of its own and has more than one "
                       "result; --json writes them all",
                       flag);
    }
  }
  CADRE_TRY(CheckWritable(options.json, "--json"));
  CADRE_TRY(CheckWritable(options.svg, "--svg"));
  return CheckLoad(options);
}

Result<LoadRun> RunOne(const config::BenchServeOptions& options, const ServerSet& set) {
  const int64_t patience = options.ready_check_timeout_s > 0 ? options.ready_check_timeout_s : kReadySeconds;
  CADRE_ASSIGN(const auto servers, RunningServers::Start(set, std::chrono::seconds(patience)));
  config::BenchServeOptions asked = options;
  asked.base_url = servers->url();
  if (asked.skip_tokenizer_init) {  // without text a stream says something at its end only, if it need not
                                    // tell ids
    if (asked.extra_body.is_null()) asked.extra_body = Json::Object();
    if (asked.extra_body.Find("return_token_ids") == nullptr) asked.extra_body.Set("return_token_ids", true);
  }
  CADRE_ASSIGN(const auto target, ServeTarget::Connect(asked));
  ServeLoad load(asked, *target);
  CADRE_TRY(load.WarmUp());
  LoadRun run{.name = set.name, .commands = {}, .load = {}, .recomputed = {}};
  for (const PlannedServer& server : set.servers) run.commands.push_back(server.CommandLine());
  const double before = servers->Metric("cadre:kv_recomputed_requests_total");
  LogInfo("{}: sending {}", set.name, LoadText(options));
  run.load = load.Measure();
  ShowErrors(run.load);
  if (set.servers.size() == 1) return run;
  run.recomputed = std::llround(servers->Metric("cadre:kv_recomputed_requests_total") - before);
  if (*run.recomputed > 0) {
    LogWarning("{} of {} requests were computed by decode itself: prefill's keys and values did not arrive",
               *run.recomputed, options.num_prompts);
  }
  if (servers->Metric("cadre:kv_fetches_total") == 0) {
    return Fail(Code::kInternal,
                "no request of the pair went from prefill to decode; this says nothing of it");
  }
  return run;
}

Json ResultJson(const config::BenchServeOptions& options, const ReportOptions& report, const Goodput& goodput,
                const std::vector<int>& cpus, const std::vector<LoadRun>& runs) {
  Json setups = Json::Array();
  for (const LoadRun& run : runs) {
    Json one = ServeResult(Summarize(run.load, goodput), run.load, report, options.save_detailed);
    Json commands = Json::Array();
    for (const std::string& command : run.commands) commands.Push(command);
    one.Set("name", run.name);
    one.Set("commands", std::move(commands));
    if (run.recomputed) one.Set("kv_recomputed_requests", *run.recomputed);
    const Json mix = MixResult(run.load, report);
    for (const auto& [key, value] : mix.AsObject()) one.Set(key, value);
    setups.Push(std::move(one));
  }
  return Json::Object{
      {"model_id", *options.model}, {"cpu", sys::CpuModelName()}, {"cpus", sys::FormatCpuList(cpus)},
      {"load", LoadText(options)},  {"seed", options.seed},       {"setups", std::move(setups)}};
}

}  // namespace

Status WriteLatencyPicture(const config::BenchServeOptions& options, const std::string& model,
                           const std::vector<LoadRun>& runs) {
  if (!options.svg) return {};
  const std::string title =
      Format("Time between tokens: {}", Excerpt(model.substr(model.rfind('/') + 1), 40));
  CADRE_TRY(sys::ReplaceFile(*options.svg, LatencySvg(title, LoadText(options), runs)));
  LogInfo("wrote {}", *options.svg);
  return {};
}

Status CompareWithPair(const config::BenchServeOptions& options, const ReportOptions& report,
                       const Goodput& goodput) {
  CADRE_TRY(CheckFlags(options));
  std::vector<int> cpus = sys::OneCpuPerCore(sys::AllowedCpus());
  cpus.resize(std::min(cpus.size(), static_cast<size_t>(sys::UsableCpus())));
  CADRE_ASSIGN(const std::vector<int> ports, FreePorts(4));
  CADRE_ASSIGN(const std::vector<ServerSet> sets, PlanServerSets(options, cpus, ports));
  std::vector<LoadRun> runs;
  for (const ServerSet& set : sets) {
    CADRE_ASSIGN(LoadRun run, RunOne(options, set));
    runs.push_back(std::move(run));
  }
  std::fputs(MixTable(runs).c_str(), stdout);
  CADRE_TRY(WriteLatencyPicture(options, *options.model, runs));
  if (options.json) CADRE_TRY(WriteJsonFile(*options.json, ResultJson(options, report, goodput, cpus, runs)));
  for (const LoadRun& run : runs) {
    if (Summarize(run.load, {}).completed == 0)
      return Fail(Code::kUnavailable, "{}: all {} requests failed", run.name, run.load.records.size());
  }
  return {};
}

}  // namespace cadre::app
