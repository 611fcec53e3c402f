// The row-wise operations: time of a call and bytes read and written per second, beside 53.6 GB/s of memory
// on two Zen 4 cores (the caches give several times that). Shapes: hidden 256 with few rows as in the demo
// model, where a call should cost about a microsecond, and hidden 2048 with 512 rows as in a prompt of
// Qwen3-30B-A3B.
//
//   kernels_bench --benchmark_filter=Rows
#include <benchmark/benchmark.h>

#include <algorithm>
#include <random>
#include <vector>

#include "kernels/attention.h"
#include "kernels/elementwise.h"
#include "kernels/topk.h"

namespace cadre::kernels {
namespace {

struct Bench {
  explicit Bench(benchmark::State& state_in)
      : state(state_in), pool({.num_threads = 2, .cpus = {}, .spin = true}), device{BestIsa(), &pool} {}

  std::vector<float> Floats(int64_t n) {
    std::normal_distribution<float> normal;
    std::vector<float> x(static_cast<size_t>(n));
    for (float& f : x) f = normal(random);
    return x;
  }
  void Bytes(int64_t bytes) {
    state.counters["B"] =
        benchmark::Counter(static_cast<double>(bytes), benchmark::Counter::kIsIterationInvariantRate);
  }

  benchmark::State& state;
  sys::ThreadPool pool;
  Device device;
  std::mt19937 random{1};
};

void RowsRmsNorm(benchmark::State& state) {
  Bench bench(state);
  const int64_t rows = state.range(0), width = state.range(1);
  const auto x = bench.Floats(rows * width), weight = bench.Floats(width);
  std::vector<Bf16> out(x.size());
  RmsNormArgs args;
  args.num_rows = rows;
  args.width = width;
  args.x = x.data();
  args.x_stride = args.out_stride = width;
  args.weight = weight.data();
  args.out = out.data();
  for (auto _ : state) RmsNorm(bench.device, args);
  bench.Bytes(rows * width * 6);
}
BENCHMARK(RowsRmsNorm)
    ->Args({1, 256})
    ->Args({32, 256})
    ->Args({32 * 8, 32})
    ->Args({512, 2048})
    ->Args({512 * 32, 128});

void RowsRope(benchmark::State& state) {
  Bench bench(state);
  const int64_t rows = state.range(0);
  RopeArgs args;
  args.num_rows = rows;
  args.num_heads = static_cast<int32_t>(state.range(1));
  args.head_dim = args.rotary_dim = static_cast<int32_t>(state.range(2));
  args.interleaved = state.range(3) != 0;
  auto x = bench.Floats(rows * args.num_heads * args.head_dim);
  const std::vector<float> cos(static_cast<size_t>(rows * args.rotary_dim / 2), 0.6f);
  const std::vector<float> sin(static_cast<size_t>(rows * args.rotary_dim / 2), 0.8f);
  args.x = x.data();
  args.x_stride = int64_t{args.num_heads} * args.head_dim;
  args.cos = cos.data();
  args.sin = sin.data();
  for (auto _ : state) Rope(bench.device, args);
  bench.Bytes(static_cast<int64_t>(x.size()) * 8);
}
BENCHMARK(RowsRope)
    ->Args({1, 8, 32, 0})
    ->Args({32, 8, 32, 0})
    ->Args({512, 32, 128, 0})
    ->Args({512, 32, 128, 1});

void RowsConvert(benchmark::State& state) {
  Bench bench(state);
  const int64_t rows = state.range(0), width = state.range(1);
  const auto x = bench.Floats(rows * width);
  std::vector<Bf16> out(x.size());
  for (auto _ : state)
    ConvertRows(bench.device, rows, width, x.data(), width, out.data(), DType::kBf16, width);
  bench.Bytes(rows * width * 6);
}
BENCHMARK(RowsConvert)->Args({1, 256})->Args({32, 256})->Args({512, 2048});

void RowsSiluMul(benchmark::State& state) {
  Bench bench(state);
  const int64_t rows = state.range(0), inter = state.range(1);
  const auto x = bench.Floats(rows * inter * 2);
  std::vector<Bf16> out(static_cast<size_t>(rows * inter));
  GatedArgs args;
  args.num_rows = rows;
  args.inter = inter;
  args.gate_up = x.data();
  args.gate_up_stride = 2 * inter;
  args.out = out.data();
  args.out_stride = inter;
  for (auto _ : state) SiluMul(bench.device, args);
  bench.Bytes(rows * inter * 10);
}
BENCHMARK(RowsSiluMul)->Args({1, 256})->Args({32, 256})->Args({512, 6144});

void RowsCombine(benchmark::State& state) {
  Bench bench(state);
  const int64_t rows = state.range(0), width = state.range(1), top_k = state.range(2);
  const auto from = bench.Floats(rows * top_k * width), weights = bench.Floats(rows * top_k);
  std::vector<int32_t> index(weights.size());
  for (size_t i = 0; i < index.size(); ++i) index[i] = static_cast<int32_t>(i);
  std::shuffle(index.begin(), index.end(), bench.random);
  std::vector<float> out(static_cast<size_t>(rows * width));
  CombineArgs args;
  args.num_rows = rows;
  args.width = width;
  args.top_k = static_cast<int32_t>(top_k);
  args.expert_rows = from.data();
  args.index = index.data();
  args.weights = weights.data();
  args.out = out.data();
  args.out_stride = width;
  for (auto _ : state) CombineRows(bench.device, args);
  bench.Bytes(rows * width * 4 * (top_k + 1));
}
BENCHMARK(RowsCombine)->Args({1, 256, 4})->Args({32, 256, 4})->Args({512, 2048, 8});

void RowsGather(benchmark::State& state) {
  Bench bench(state);
  const int64_t rows = state.range(0), width = state.range(1);
  const std::vector<Bf16> table(static_cast<size_t>(2048 * width), ToBf16(1));
  std::vector<int32_t> ids(static_cast<size_t>(rows));
  for (int32_t& id : ids) id = static_cast<int32_t>(bench.random() % 2048);
  std::vector<float> out(static_cast<size_t>(rows * width));
  for (auto _ : state)
    GatherRows(bench.device, rows, ids.data(), table.data(), DType::kBf16, width, 1, out.data());
  bench.Bytes(rows * width * 6);
}
BENCHMARK(RowsGather)->Args({1, 256})->Args({32, 256})->Args({512, 2048});

void RowsRouter(benchmark::State& state) {
  Bench bench(state);
  const int64_t rows = state.range(0), num_experts = state.range(1), top_k = state.range(2);
  const auto logits = bench.Floats(rows * num_experts), bias = bench.Floats(num_experts);
  std::vector<int32_t> experts(static_cast<size_t>(rows * top_k));
  std::vector<float> weights(experts.size());
  TopKArgs args;
  args.num_rows = rows;
  args.num_experts = static_cast<int32_t>(num_experts);
  args.top_k = static_cast<int32_t>(top_k);
  args.logits = logits.data();
  args.normalize = true;
  args.experts = experts.data();
  args.weights = weights.data();
  if (state.range(3) > 1) {
    args.score = RouterScore::kSigmoid;
    args.selection_bias = bias.data();
    args.num_groups = static_cast<int32_t>(state.range(3));
    args.top_groups = args.num_groups / 2;
    args.group_score = GroupScore::kSumOfTop2;
  }
  for (auto _ : state) RouterTopK(bench.device, args);
  bench.Bytes(rows * num_experts * 4);
}
BENCHMARK(RowsRouter)
    ->Args({1, 32, 4, 1})
    ->Args({32, 32, 4, 1})
    ->Args({512, 128, 8, 1})
    ->Args({512, 256, 8, 8});

void RowsArgMax(benchmark::State& state) {
  Bench bench(state);
  const auto x = bench.Floats(state.range(0));
  for (auto _ : state) benchmark::DoNotOptimize(ArgMax(bench.device, x.data(), state.range(0)));
  bench.Bytes(state.range(0) * 4);
}
BENCHMARK(RowsArgMax)->Arg(2048)->Arg(151936);

void RowsLogSumExp(benchmark::State& state) {
  Bench bench(state);
  const auto x = bench.Floats(state.range(0));
  for (auto _ : state) benchmark::DoNotOptimize(LogSumExp(bench.device, x.data(), state.range(0)));
  bench.Bytes(state.range(0) * 4);
}
BENCHMARK(RowsLogSumExp)->Arg(2048)->Arg(151936);

void RowsWriteKv(benchmark::State& state) {
  Bench bench(state);
  const int64_t tokens = state.range(0);
  KvWriteArgs args;
  args.kv.num_kv_heads = static_cast<int32_t>(state.range(1));
  args.kv.k_dim = args.kv.v_dim = static_cast<int32_t>(state.range(2));
  args.kv.block_stride = KvBlockBytes(args.kv);
  std::vector<std::byte> memory(
      static_cast<size_t>(args.kv.block_stride * ((tokens * state.range(3) + 15) / 16 + 1)));
  args.kv.base = reinterpret_cast<std::byte*>((reinterpret_cast<uintptr_t>(memory.data()) + 63) / 64 * 64);
  args.k_stride = args.v_stride = int64_t{args.kv.num_kv_heads} * args.kv.k_dim;
  const auto k = bench.Floats(tokens * args.k_stride), v = bench.Floats(tokens * args.k_stride);
  std::vector<int64_t> slots;
  for (int64_t t = 0; t < tokens; ++t) slots.push_back(t * state.range(3));
  args.num_tokens = tokens;
  args.k = k.data();
  args.v = v.data();
  args.slots = slots.data();
  for (auto _ : state) WriteKv(bench.device, args);
  bench.Bytes(tokens * args.k_stride * 12);
}
BENCHMARK(RowsWriteKv)
    ->Args({1, 2, 32, 1})
    ->Args({32, 2, 32, 96})
    ->Args({512, 4, 128, 1})
    ->Args({32, 4, 128, 512});

}  // namespace
}  // namespace cadre::kernels
