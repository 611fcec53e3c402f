#include "app/floor.h"

#include <algorithm>
#include <cmath>
#include <thread>

#include "sys/cpu.h"
#include "sys/threads.h"

namespace cadre::app {
namespace {

// Positions that a row with `context` positions behind and under it looks at, over all layers.
double SumSeen(const ModelCost& cost, double context) {
  double sum = 0;
  for (const int32_t window : cost.windows) sum += window > 0 ? std::min<double>(window, context) : context;
  return sum;
}

// The same for all rows of a prompt together: row i sees min(i + 1, window).
double SumSeenByPrompt(const ModelCost& cost, double length) {
  double sum = 0;
  for (const int32_t window : cost.windows) {
    const double full = window > 0 ? std::min<double>(window, length) : length;
    sum += full * (full + 1) / 2 + (length - full) * full;
  }
  return sum;
}

double WeightBytes(const ModelCost& cost, double rows) {
  const double experts = ExpectedDistinctExperts(cost.num_experts, cost.top_k, rows);
  return cost.dense_bytes + static_cast<double>(cost.num_moe_layers) * experts * cost.expert_bytes;
}

}  // namespace

double ExpectedDistinctExperts(int64_t num_experts, int64_t top_k, double num_rows) {
  if (num_experts <= 0) return 0;
  const auto all = static_cast<double>(num_experts);
  return all * (1 - std::pow(1 - static_cast<double>(top_k) / all, num_rows));
}

Result<ModelCost> ModelCost::Of(const deploy::ModelSetup& setup, const config::EngineOptions& options) {
  const model::ModelSpec& spec = setup.spec;
  CADRE_ASSIGN(const model::WeightPlan plan,
               model::PlanWeights(spec, {.type = setup.type, .fp8 = setup.fp8, .enable_ep = true}));
  ModelCost cost;
  const int dp = options.parallel.data_parallel_size;
  cost.dense_bytes =
      static_cast<double>(plan.dense_bytes - plan.parts.embedding);  // of which a row takes one line
  cost.num_moe_layers = spec.num_moe_layers();
  cost.num_experts = spec.moe.num_experts;
  cost.top_k = spec.moe.top_k;
  if (cost.num_moe_layers > 0) {
    cost.expert_bytes =
        static_cast<double>(plan.expert_bytes) / static_cast<double>(cost.num_moe_layers * cost.num_experts);
  }
  const auto head = static_cast<double>(spec.vocab_size) * spec.hidden;
  cost.head_operations = 2 * head;
  cost.operations_per_row = 2 * (static_cast<double>(spec.num_active_parameters()) - head);
  const nn::AttentionSpec& attention = spec.attention;
  cost.attention_operations = 2.0 * attention.num_heads * (attention.cache_k_dim() + attention.cache_v_dim());
  const kv::Layout kv = deploy::KvLayoutOf(spec, 1, options.cache.block_size, setup.type);
  cost.kv_bytes = static_cast<double>(kv.BytesPerToken()) / spec.num_layers();
  for (const model::LayerSpec& layer : spec.layers) cost.windows.push_back(layer.window);
  cost.max_rows_per_step = options.scheduler.max_num_batched_tokens * dp;
  cost.max_sequences_per_step = options.scheduler.max_num_seqs * dp;
  return cost;
}

Work DecodeWork(const ModelCost& cost, double batch, double context) {
  const double seen = SumSeen(cost, context);
  return {.bytes = WeightBytes(cost, batch) + batch * seen * cost.kv_bytes,
          .operations =
              batch * (cost.operations_per_row + cost.head_operations + seen * cost.attention_operations)};
}

Work DecodeWork(const ModelCost& cost, double batch, double input_len, double output_len) {
  if (output_len <= 1 || batch <= 0) return {};
  const double together = std::min(batch, static_cast<double>(cost.max_sequences_per_step));
  const double steps = std::ceil(batch / together) * (output_len - 1);
  Work step = DecodeWork(cost, batch / std::ceil(batch / together), input_len + output_len / 2);
  return {.bytes = step.bytes * steps, .operations = step.operations * steps};
}

Work PrefillWork(const ModelCost& cost, double batch, double input_len) {
  const double rows = batch * input_len;
  if (rows <= 0) return {};
  const double steps = std::ceil(rows / static_cast<double>(cost.max_rows_per_step));
  // Keys and values of a chunk are written, and read again by the rows that follow: at least once.
  return {.bytes = steps * WeightBytes(cost, rows / steps) + batch * SumSeen(cost, input_len) * cost.kv_bytes,
          .operations =
              rows * cost.operations_per_row +
              batch * (SumSeenByPrompt(cost, input_len) * cost.attention_operations + cost.head_operations)};
}

Floor FloorOf(const Work& work, const kernels::MachineRates& rates) {
  const double memory_s = work.bytes / rates.read_bytes_per_s;
  const double products_s = work.operations / rates.operations_per_s;
  return memory_s > products_s ? Floor{.memory_s = memory_s} : Floor{.products_s = products_s};
}

namespace {

// All local ranks' threads together, where they may run.
sys::ThreadPoolOptions AllThreads(const deploy::ModelSetup& setup, const config::EngineOptions& options) {
  sys::ThreadPoolOptions pool{.num_threads = setup.threads_per_rank * options.parallel.expert_parallel_size(),
                              .cpus = {},
                              .spin = setup.spin};
  for (const auto& cpus : setup.cpus_of_rank) {
    const size_t used = std::min(cpus.size(), static_cast<size_t>(setup.threads_per_rank));
    pool.cpus.insert(pool.cpus.end(), cpus.begin(), cpus.begin() + static_cast<ptrdiff_t>(used));
  }
  if (pool.cpus.size() != static_cast<size_t>(pool.num_threads)) pool.cpus.clear();
  return pool;
}

}  // namespace

Result<kernels::MachineRates> MeasureMachine(const deploy::ModelSetup& setup,
                                             const config::EngineOptions& options) {
  Result<kernels::MachineRates> rates;
  // A thread of its own, because a pool pins its owner.
  std::thread([&] {
    sys::ThreadPool pool(AllThreads(setup, options));
    rates = kernels::MeasureRates({.isa = setup.isa, .pool = &pool}, setup.type);
  }).join();
  return rates;
}

Json MachineJson(const deploy::ModelSetup& setup, const config::EngineOptions& options,
                 const kernels::MachineRates& rates) {
  return Json::Object{{"cpu", sys::CpuModelName()},
                      {"instruction_set", kernels::IsaName(setup.isa)},
                      {"dtype", DTypeName(setup.type)},
                      {"threads", setup.threads_per_rank * options.parallel.expert_parallel_size()},
                      {"read_bytes_per_second", rates.read_bytes_per_s},
                      {"operations_per_second", rates.operations_per_s}};
}

}  // namespace cadre::app
