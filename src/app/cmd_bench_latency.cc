// cadre bench latency: one batch of equal prompts, again and again.
#include "app/batch_run.h"
#include "app/bench_report.h"
#include "app/random_prompts.h"
#include "app/run.h"
#include "app/statistics.h"
#include "base/log.h"

namespace cadre::app {
namespace {

// Fresh prompts for every round, so that the prefix cache has nothing to find.
session::GenerateRequest RoundRequest(const config::BenchLatencyOptions& options, int64_t vocab_size,
                                      int64_t round) {
  std::vector<std::vector<int64_t>> prompts;
  for (int64_t i = 0; i < options.batch_size; ++i) {
    const auto stream = static_cast<uint64_t>(round * options.batch_size + i);
    prompts.push_back(RandomTokens(options.input_len, vocab_size,
                                   static_cast<uint64_t>(options.engine.model.seed), stream));
  }
  return FixedLengthRequest(Format("latency-{}", round), std::move(prompts), options.output_len, options.n,
                            round);
}

constexpr double kPercentiles[] = {10, 25, 50, 75, 90, 99};

struct Rounds {
  std::vector<double> latencies, prefill_s, decode_s_per_token;

  void Add(const Phases& phases) {
    latencies.push_back(phases.total_s);
    prefill_s.push_back(phases.prefill_s);
    if (phases.decode_tokens > 0) {
      decode_s_per_token.push_back(phases.decode_s / static_cast<double>(phases.decode_tokens));
    }
  }
};

Result<Rounds> Measure(LocalSession& local, const config::BenchLatencyOptions& options) {
  const int64_t vocab_size = local.session().model().vocab_size;
  Rounds rounds;
  for (int64_t round = 0; round < options.num_iters_warmup + options.num_iters; ++round) {
    CADRE_ASSIGN(const Phases phases, RunBatch(local, RoundRequest(options, vocab_size, round)));
    LogDebug("round {}: {:.4f} s, first tokens after {:.4f} s", round, phases.total_s, phases.prefill_s);
    if (round >= options.num_iters_warmup) rounds.Add(phases);
  }
  return rounds;
}

std::vector<SpeedLine> SpeedLines(const config::BenchLatencyOptions& options, const Rounds& rounds,
                                  const ModelCost& cost, const kernels::MachineRates& rates) {
  const auto input = static_cast<double>(options.input_len), output = static_cast<double>(options.output_len);
  // Answers to one prompt share its prefill where blocks are shared; the floor counts it once.
  const auto prompts = static_cast<double>(options.batch_size);
  const double sequences = prompts * static_cast<double>(options.n);
  const Work prefill = PrefillWork(cost, prompts, input);
  std::vector<SpeedLine> lines = {{.name = "prefill",
                                   .tokens = prompts * input,
                                   .seconds = Median(rounds.prefill_s),
                                   .work = prefill,
                                   .floor = FloorOf(prefill, rates)}};
  if (!rounds.decode_s_per_token.empty()) {
    const Work step = DecodeWork(cost, sequences, input + output / 2);
    lines.push_back({.name = "decode",
                     .tokens = sequences,
                     .seconds = Median(rounds.decode_s_per_token) * sequences,
                     .work = step,
                     .floor = FloorOf(step, rates)});
  }
  return lines;
}

Json VllmResult(const Rounds& rounds) {
  Json percentiles = Json::Object();
  for (const double p : kPercentiles) percentiles.Set(PercentileName(p), Percentile(rounds.latencies, p));
  Json latencies = Json::Array();
  for (const double latency : rounds.latencies) latencies.Push(latency);
  return Json::Object{{"avg_latency", Mean(rounds.latencies)},
                      {"latencies", std::move(latencies)},
                      {"percentiles", std::move(percentiles)}};
}

void PrintLatencies(const Rounds& rounds) {
  std::printf("Avg latency: %.6f seconds\n", Mean(rounds.latencies));
  for (const double p : kPercentiles) {
    std::printf("%.0f%% percentile latency: %.6f seconds\n", p, Percentile(rounds.latencies, p));
  }
}

Json CadreResult(const config::BenchLatencyOptions& options, const Rounds& rounds,
                 std::vector<SpeedLine> lines, const ModelCost& cost, const kernels::MachineRates& rates,
                 const deploy::ModelSetup& setup) {
  Json result = VllmResult(rounds);
  result.Set("model_id", options.engine.model.model);
  result.Set("input_len", options.input_len);
  result.Set("output_len", options.output_len);
  result.Set("batch_size", options.batch_size);
  result.Set("n", options.n);
  AddSpeeds(result, lines);
  if (result.Find("decode_tokens_per_second") == nullptr) result.Set("decode_tokens_per_second", nullptr);
  const Work decode =
      DecodeWork(cost, static_cast<double>(options.batch_size * options.n),
                 static_cast<double>(options.input_len), static_cast<double>(options.output_len));
  result.Set("floor_latency", (lines[0].floor + FloorOf(decode, rates)).seconds());
  result.Set("machine", MachineJson(setup, options.engine, rates));
  return result;
}

Status Run(const config::BenchLatencyOptions& options) {
  const auto prompts = static_cast<double>(options.batch_size);
  CADRE_TRY(CheckPromptCount(prompts, prompts * static_cast<double>(options.n),
                             static_cast<double>(options.input_len)));
  CADRE_TRY(CheckWritable(options.output_json, "--output-json"));
  CADRE_TRY(CheckWritable(options.json, "--json"));
  CADRE_ASSIGN(const deploy::ModelSetup setup, deploy::PrepareModel(options.engine));
  CADRE_ASSIGN(const ModelCost cost, ModelCost::Of(setup, options.engine));
  CADRE_ASSIGN(const kernels::MachineRates rates, MeasureMachine(setup, options.engine));
  CADRE_ASSIGN(const auto local,
               LocalSession::Open(options.engine, {.text = !options.disable_detokenize,
                                                   .max_sequences = options.batch_size * options.n}));
  CADRE_ASSIGN(const Rounds rounds, Measure(*local, options));
  PrintLatencies(rounds);
  const std::vector<SpeedLine> lines = SpeedLines(options, rounds, cost, rates);
  std::fputs(SpeedTable(lines, rates).c_str(), stdout);
  if (options.output_json) CADRE_TRY(WriteJsonFile(*options.output_json, VllmResult(rounds)));
  if (options.json)
    CADRE_TRY(WriteJsonFile(*options.json, CadreResult(options, rounds, lines, cost, rates, setup)));
  return {};
}

}  // namespace

int BenchLatency(Args args, const config::Environment& env) {
  return RunParsed(config::ParseBenchLatency, args, env, Run);
}

}  // namespace cadre::app
