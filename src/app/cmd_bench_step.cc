// cadre bench step: what data and expert parallelism costs on one host. The same model runs twice, as ranks
// and as one process with as many threads, in turns, so that a change of the machine's speed hits both. Each
// time stands beside its own floor (app/floor.h): ranks read the dense weights once *each*, experts once in
// all.
#include <algorithm>
#include <cstdio>

#include "app/batch_run.h"
#include "app/bench_report.h"
#include "app/bench_step.h"
#include "app/random_prompts.h"
#include "app/run.h"
#include "app/statistics.h"
#include "config/value.h"
#include "sys/cpu.h"

namespace cadre::app {
namespace {

using config::BenchStepOptions;

constexpr int64_t kMaxBatch = 4096;

Result<std::vector<int64_t>> Batches(const BenchStepOptions& options) {
  std::vector<int64_t> batches;
  for (const std::string_view word : config::SplitComma(options.batches)) {
    const auto number = config::ParseInt(config::Trim(word));
    if (!number || *number < 1 || *number > kMaxBatch) {
      return FailParam(Code::kInvalidArgument, "--batches",
                       "--batches wants numbers from 1 to {} with commas between, not '{}'", kMaxBatch, word);
    }
    batches.push_back(*number);
  }
  return batches;
}

int64_t LargestBatch(const BenchStepOptions& options) {
  const auto batches = Batches(options);
  return batches && !batches->empty() ? *std::ranges::max_element(*batches) : 1;
}

int ThreadsOfRank(const BenchStepOptions& options) {
  if (options.engine.cpu.threads) return *options.engine.cpu.threads;
  return std::max(1, sys::UsableCpus() / static_cast<int>(options.ranks));
}

config::EngineOptions Common(const BenchStepOptions& options) {
  config::EngineOptions engine = options.engine;
  engine.parallel.tensor_parallel_size = 1;
  engine.parallel.enable_expert_parallel = false;
  const int64_t batch = LargestBatch(options);
  engine.scheduler.max_num_seqs = std::max(engine.scheduler.max_num_seqs, batch);
  engine.scheduler.max_num_batched_tokens =
      std::max(engine.scheduler.max_num_batched_tokens, engine.scheduler.max_num_seqs);
  // Two deployments share the machine, so neither may take what is left of it. A rank may get all sequences.
  if (!engine.cache.kv_cache_memory_bytes) engine.cache.kv_cache_memory_bytes = int64_t{512} << 20;
  return engine;
}

// Times of one deployment.
struct Samples {
  std::vector<double> prefill_s, step_s;
};

struct Side {
  const char* name;
  std::unique_ptr<LocalSession> local;
  ModelCost cost;
  int64_t ranks = 1;

  // The dense weights are read by every rank that has rows.
  ModelCost CostOf(int64_t batch) const {
    ModelCost c = cost;
    c.dense_bytes *= static_cast<double>(std::min(ranks, batch));
    return c;
  }
};

session::GenerateRequest Request(const BenchStepOptions& options, int64_t vocab, int64_t batch,
                                 int64_t round) {
  std::vector<std::vector<int64_t>> prompts;
  for (int64_t i = 0; i < batch; ++i) {
    const auto stream = static_cast<uint64_t>(((batch << 20) + round) * kMaxBatch + i);
    prompts.push_back(
        RandomTokens(options.input_len, vocab, static_cast<uint64_t>(options.engine.model.seed), stream));
  }
  return FixedLengthRequest(Format("step-{}-{}", batch, round), std::move(prompts), options.output_len, 1,
                            round);
}

Status OneRound(const BenchStepOptions& options, Side& side, int64_t batch, int64_t round, Samples* samples) {
  const int64_t vocab = side.local->session().model().vocab_size;
  CADRE_ASSIGN(const Phases phases, RunBatch(*side.local, Request(options, vocab, batch, round)));
  if (samples == nullptr) return {};
  samples->prefill_s.push_back(phases.prefill_s);
  if (phases.decode_tokens > 0) {
    samples->step_s.push_back(phases.decode_s * static_cast<double>(batch) /
                              static_cast<double>(phases.decode_tokens));
  }
  return {};
}

struct Line {
  int64_t batch = 0;
  const char* phase = "";
  double one_s = 0, ranks_s = 0, one_floor_s = 0, ranks_floor_s = 0;
  std::vector<double> pair_ratios;  ///< one / ranks of the rounds that took turns

  double one_share() const { return one_floor_s / one_s; }
  double ranks_share() const { return ranks_floor_s / ranks_s; }
  /// What the aim is about: 1 means that ranks come as near to their floor as one process to its own.
  double relative() const { return Median(pair_ratios) * ranks_floor_s / one_floor_s; }
};

std::vector<double> Ratios(const std::vector<double>& one, const std::vector<double>& ranks) {
  std::vector<double> ratios;
  for (size_t i = 0; i < std::min(one.size(), ranks.size()); ++i) ratios.push_back(one[i] / ranks[i]);
  return ratios;
}

void AddLines(const BenchStepOptions& options, const Side& one, const Side& ranks, const Samples& a,
              const Samples& b, const kernels::MachineRates& rates, int64_t batch, std::vector<Line>& lines) {
  const auto count = static_cast<double>(batch);
  const auto input = static_cast<double>(options.input_len);
  const double context = input + static_cast<double>(options.output_len) / 2;
  const auto decode = [&](const Side& side) {
    return FloorOf(DecodeWork(side.CostOf(batch), count, context), rates).seconds();
  };
  const auto prefill = [&](const Side& side) {
    return FloorOf(PrefillWork(side.CostOf(batch), count, input), rates).seconds();
  };
  lines.push_back({batch, "decode", Median(a.step_s), Median(b.step_s), decode(one), decode(ranks),
                   Ratios(a.step_s, b.step_s)});
  lines.push_back({batch, "prefill", Median(a.prefill_s), Median(b.prefill_s), prefill(one), prefill(ranks),
                   Ratios(a.prefill_s, b.prefill_s)});
}

void PrintHead(const BenchStepOptions& options, const Side& one, const Side& ranks,
               const kernels::MachineRates& rates) {
  std::printf("\n%s, %s; %d ranks x %d threads beside one process with %d\n", sys::CpuModelName().c_str(),
              options.engine.model.model.c_str(), static_cast<int>(ranks.ranks),
              ranks.local->deployment().setup().threads_per_rank,
              one.local->deployment().setup().threads_per_rank);
  std::printf("exchange: prefill %s, decode %s; measured %.1f GB/s, %.0f GFLOP/s\n",
              options.engine.parallel.prefill_backend().c_str(),
              options.engine.parallel.decode_backend().c_str(), rates.read_bytes_per_s / 1e9,
              rates.operations_per_s / 1e9);
  std::printf("\n%6s %-8s %12s %9s %12s %9s %10s %10s\n", "batch", "phase", "one, ms", "of floor",
              "ranks, ms", "of floor", "relative", "one/ranks");
}

void Print(const Line& line) {
  std::printf("%6lld %-8s %12.3f %8.0f%% %12.3f %8.0f%% %10.2f %10.2f\n", static_cast<long long>(line.batch),
              line.phase, line.one_s * 1e3, line.one_share() * 100, line.ranks_s * 1e3,
              line.ranks_share() * 100, line.relative(), Median(line.pair_ratios));
  std::fflush(stdout);
}

void PrintFoot() {
  std::printf(
      "\nrelative: how near ranks come to their floor, by how near one process comes to its own (the aim is "
      "0.95\nfrom batch 16 on); one/ranks: times alone. Medians of rounds that took turns.\n");
}

Json ResultJson(const BenchStepOptions& options, const Side& ranks, const std::vector<Line>& lines,
                const kernels::MachineRates& rates) {
  Json rows = Json::Array();
  for (const Line& line : lines) {
    Json ratios = Json::Array();
    for (const double ratio : line.pair_ratios) ratios.Push(ratio);
    rows.Push(Json::Object{{"batch", line.batch},
                           {"phase", line.phase},
                           {"one_seconds", line.one_s},
                           {"one_floor_seconds", line.one_floor_s},
                           {"one_share_of_floor", line.one_share()},
                           {"ranks_seconds", line.ranks_s},
                           {"ranks_floor_seconds", line.ranks_floor_s},
                           {"ranks_share_of_floor", line.ranks_share()},
                           {"relative", line.relative()},
                           {"ratios_of_times", std::move(ratios)}});
  }
  const deploy::ModelSetup& setup = ranks.local->deployment().setup();
  return Json::Object{{"model_id", options.engine.model.model},
                      {"ranks", options.ranks},
                      {"input_len", options.input_len},
                      {"output_len", options.output_len},
                      {"prefill_all2all_backend", options.engine.parallel.prefill_backend()},
                      {"decode_all2all_backend", options.engine.parallel.decode_backend()},
                      {"machine", MachineJson(setup, RanksOptions(options), rates)},
                      {"steps", std::move(rows)}};
}

Result<Side> OpenSide(const char* name, const config::EngineOptions& engine, int64_t ranks, int64_t batch) {
  Side side{.name = name, .ranks = ranks};
  CADRE_ASSIGN(side.local, LocalSession::Open(engine, {.text = false, .max_sequences = batch}));
  CADRE_ASSIGN(side.cost, ModelCost::Of(side.local->deployment().setup(), engine));
  return side;
}

Status Run(const BenchStepOptions& options) {
  CADRE_TRY(CheckWritable(options.json, "--json"));
  CADRE_ASSIGN(const std::vector<int64_t> batches, Batches(options));
  const int64_t batch = LargestBatch(options);
  CADRE_TRY(CheckPromptCount(static_cast<double>(batch), static_cast<double>(batch),
                             static_cast<double>(options.input_len)));
  const config::EngineOptions ranks_options = RanksOptions(options);
  CADRE_ASSIGN(const deploy::ModelSetup setup, deploy::PrepareModel(ranks_options));
  if (!setup.is_moe()) {
    return FailParam(Code::kInvalidArgument, "model", "{} has no experts, so there is nothing to compare",
                     options.engine.model.model);
  }
  CADRE_ASSIGN(const kernels::MachineRates rates, MeasureMachine(setup, ranks_options));
  // Ranks first: their processes start while this one is small.
  CADRE_ASSIGN(Side ranks, OpenSide("ranks", ranks_options, options.ranks, batch));
  CADRE_ASSIGN(Side one, OpenSide("one process", OneProcessOptions(options), 1, batch));
  std::vector<Line> lines;
  PrintHead(options, one, ranks, rates);
  for (const int64_t size : batches) {
    Samples of_one, of_ranks;
    for (int64_t i = 0; i < options.num_iters_warmup + options.num_iters; ++i) {
      const bool counts = i >= options.num_iters_warmup;
      CADRE_TRY(OneRound(options, one, size, i, counts ? &of_one : nullptr));
      CADRE_TRY(OneRound(options, ranks, size, i, counts ? &of_ranks : nullptr));
    }
    AddLines(options, one, ranks, of_one, of_ranks, rates, size, lines);
    for (size_t i = lines.size() - 2; i < lines.size(); ++i) Print(lines[i]);
  }
  PrintFoot();
  if (!options.json) return {};
  return WriteJsonFile(*options.json, ResultJson(options, ranks, lines, rates));
}

}  // namespace

config::EngineOptions RanksOptions(const BenchStepOptions& options) {
  config::EngineOptions engine = Common(options);
  engine.parallel.data_parallel_size = static_cast<int>(options.ranks);
  engine.parallel.enable_expert_parallel = true;
  engine.cpu.threads = ThreadsOfRank(options);
  return engine;
}

config::EngineOptions OneProcessOptions(const BenchStepOptions& options) {
  config::EngineOptions engine = Common(options);
  engine.parallel.data_parallel_size = 1;
  engine.cpu.threads = ThreadsOfRank(options) * static_cast<int>(options.ranks);
  return engine;
}

int BenchStep(Args args, const config::Environment& env) {
  return RunParsed(config::ParseBenchStep, args, env, Run);
}

}  // namespace cadre::app
