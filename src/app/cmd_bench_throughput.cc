// cadre bench throughput: many requests at once, in this process.
#include <algorithm>
#include <chrono>
#include <thread>

#include "app/batch_run.h"
#include "app/bench_report.h"
#include "app/random_prompts.h"
#include "app/run.h"

namespace cadre::app {
namespace {

struct Totals {
  double elapsed_s = 0;
  int64_t prompt_tokens = 0, output_tokens = 0, num_requests = 0;

  double per_second(int64_t count) const {
    return elapsed_s > 0 ? static_cast<double>(count) / elapsed_s : 0;
  }
};

Result<Totals> RunAll(LocalSession& local, const std::vector<RandomPrompt>& prompts, int64_t n,
                      int64_t seed) {
  std::vector<std::shared_ptr<BatchListener>> listeners;
  std::vector<std::shared_ptr<session::Generation>>
      generations;  // a dropped one goes on, but nobody could end it
  Totals totals{.num_requests = static_cast<int64_t>(prompts.size())};
  const TimePoint start = Now();
  for (const RandomPrompt& prompt : prompts) {
    const std::string id = Format("throughput-{}", listeners.size());
    auto listener = std::make_shared<BatchListener>(static_cast<size_t>(n));
    while (true) {
      auto generation = local.session().Start(
          FixedLengthRequest(id, {prompt.ids}, prompt.output_len, n, seed + totals.prompt_tokens), listener,
          local.Post());
      if (!generation && generation.error().code == Code::kResourceExhausted) {
        std::this_thread::sleep_for(
            std::chrono::milliseconds(1));  // --max-num-queued-reqs: the queue is full
        continue;
      }
      CADRE_TRY(generation);
      generations.push_back(std::move(*generation));
      break;
    }
    listeners.push_back(std::move(listener));
    totals.prompt_tokens += static_cast<int64_t>(prompt.ids.size());
  }
  for (const auto& listener : listeners) {
    while (!listener->ended()) local.queue().RunSome();
  }
  totals.elapsed_s = SecondsSince(start);
  for (const auto& listener : listeners) {
    if (const Status status = listener->status(); !status)
      return std::unexpected(local.Explain(status.error()));
    for (const SequenceRun& run : listener->runs())
      totals.output_tokens += static_cast<int64_t>(run.tokens.size());
  }
  return totals;
}

Json VllmResult(const Totals& totals) {
  const int64_t tokens = totals.prompt_tokens + totals.output_tokens;
  return Json::Object{{"elapsed_time", totals.elapsed_s},
                      {"num_requests", totals.num_requests},
                      {"total_num_tokens", tokens},
                      {"requests_per_second", totals.per_second(totals.num_requests)},
                      {"tokens_per_second", totals.per_second(tokens)}};
}

void Print(const Totals& totals) {
  std::printf("Throughput: %.2f requests/s, %.2f total tokens/s, %.2f output tokens/s\n",
              totals.per_second(totals.num_requests),
              totals.per_second(totals.prompt_tokens + totals.output_tokens),
              totals.per_second(totals.output_tokens));
  std::printf("Total num prompt tokens:  %lld\n", static_cast<long long>(totals.prompt_tokens));
  std::printf("Total num output tokens:  %lld\n", static_cast<long long>(totals.output_tokens));
}

// CPU time of each rank since `before`, and how balanced the experts are.
void AddRanks(Json& result, const std::vector<engine::RankStats>& before,
              const std::vector<engine::RankStats>& after) {
  Json seconds = Json(Json::Array());
  for (size_t r = 0; r < after.size(); ++r) seconds.Push(after[r].cpu_seconds - before[r].cpu_seconds);
  result.Set("rank_cpu_seconds", std::move(seconds));
  const engine::EplbStats& stats = after.front().eplb;
  if (stats.epoch == 0) return;
  Json layers = Json(Json::Array());
  for (const double layer : stats.layer_balancedness) layers.Push(layer);
  Json eplb;
  eplb.Set("balancedness", stats.balancedness);
  eplb.Set("layer_balancedness", std::move(layers));
  eplb.Set("epoch", stats.epoch);
  eplb.Set("num_rebalances", stats.num_rebalances);
  eplb.Set("num_moved", stats.num_moved);
  eplb.Set("moved_bytes", stats.moved_bytes);
  eplb.Set("num_failed_waves", stats.num_failed_waves);
  eplb.Set("moving_seconds", stats.moving_seconds);
  result.Set("eplb", std::move(eplb));
}

Status Run(const config::BenchThroughputOptions& options) {
  const config::RandomDatasetOptions shape = Effective(options.random, options.input_len, options.output_len);
  CADRE_TRY(CheckPromptCount(shape, std::max(options.num_prompts, options.num_warmups), options.n));
  CADRE_TRY(CheckWritable(options.output_json, "--output-json"));
  CADRE_TRY(CheckWritable(options.json, "--json"));
  CADRE_ASSIGN(const deploy::ModelSetup setup, deploy::PrepareModel(options.engine));
  CADRE_ASSIGN(const ModelCost cost, ModelCost::Of(setup, options.engine));
  CADRE_ASSIGN(const kernels::MachineRates rates, MeasureMachine(setup, options.engine));
  CADRE_ASSIGN(const auto local, LocalSession::Open(options.engine, {.text = !options.disable_detokenize}));

  const int64_t vocab_size = setup.spec.vocab_size, seed = options.engine.model.seed;
  // Other prompts than those measured, or the prefix cache would know them.
  CADRE_TRY(RunAll(*local,
                   MakeRandomPrompts(shape, options.num_warmups, vocab_size, ~static_cast<uint64_t>(seed)),
                   options.n, seed));
  const std::vector<engine::RankStats> before = local->deployment().engine().Stats();
  CADRE_ASSIGN(
      const Totals totals,
      RunAll(*local, MakeRandomPrompts(shape, options.num_prompts, vocab_size, static_cast<uint64_t>(seed)),
             options.n, seed));
  Print(totals);
  const std::vector<SpeedLine> lines = LoadSpeeds({.num_prompts = totals.num_requests,
                                                   .num_sequences = totals.num_requests * options.n,
                                                   .num_together = totals.num_requests * options.n,
                                                   .prompt_tokens = totals.prompt_tokens,
                                                   .output_tokens = totals.output_tokens,
                                                   .seconds = totals.elapsed_s},
                                                  cost, rates);
  std::fputs(SpeedTable(lines, rates).c_str(), stdout);
  if (options.output_json) CADRE_TRY(WriteJsonFile(*options.output_json, VllmResult(totals)));
  if (options.json) {
    Json result = VllmResult(totals);
    result.Set("model_id", options.engine.model.model);
    AddSpeeds(result, lines);
    AddRanks(result, before, local->deployment().engine().Stats());
    result.Set("machine", MachineJson(setup, options.engine, rates));
    CADRE_TRY(WriteJsonFile(*options.json, result));
  }
  return {};
}

}  // namespace

int BenchThroughput(Args args, const config::Environment& env) {
  return RunParsed(config::ParseBenchThroughput, args, env, Run);
}

}  // namespace cadre::app
