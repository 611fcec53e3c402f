// RunExperts on a layer's worth of experts cycled from memory, against the floor.
// Arguments: instruction set, threads, tokens, experts, top-k, hidden, inter, skew (0: even routing, 1:
// Zipf), format (1: bf16, 2: fp8).
#include "kernels/grouped_gemm.h"

#include <cmath>

#include "base/random.h"
#include "kernels/bench_testing.h"

namespace cadre::kernels {
namespace {

// Draws top_k different experts for each token with weights 1 / (1 + rank)^(0.7 skew); returns the experts'
// row counts.
std::vector<int32_t> Route(int64_t tokens, int64_t num_experts, int64_t top_k, int64_t skew,
                           uint64_t stream) {
  std::vector<int32_t> counts(static_cast<size_t>(num_experts), 0);
  for (int64_t t = 0; t < tokens; ++t) {
    std::vector<std::pair<double, size_t>> keys;  // exponential races: the smallest top_k keys are the draw
    for (size_t e = 0; e < counts.size(); ++e) {
      const double u = UniformAt(5, stream, static_cast<uint64_t>(t) * counts.size() + e);
      keys.emplace_back(
          -std::log(1 - u) * std::pow(1.0 + static_cast<double>(e), 0.7 * static_cast<double>(skew)), e);
    }
    std::partial_sort(keys.begin(), keys.begin() + top_k, keys.end());
    for (int64_t i = 0; i < top_k; ++i) ++counts[keys[static_cast<size_t>(i)].second];
  }
  return counts;
}

void RunLayer(benchmark::State& state) {
  const auto isa = static_cast<Isa>(state.range(0));
  const int64_t tokens = state.range(2), num_experts = state.range(3), top_k = state.range(4);
  const int64_t hidden = state.range(5), inter = state.range(6);
  if (!IsaSupported(isa)) return state.SkipWithError("this CPU lacks the instruction set");
  const Device device = testing::BenchDevice(isa, static_cast<int>(state.range(1)));
  const auto format = static_cast<PackFormat>(state.range(8));
  const int64_t gate_up_n = 2 * RoundUp(inter, kPanelRows);
  const int64_t gate_up_bytes = PackedBytes(format, gate_up_n, hidden),
                down_bytes = PackedBytes(format, hidden, inter);
  const int64_t layer_bytes = num_experts * (gate_up_bytes + down_bytes);
  static std::byte* memory = nullptr;
  static int64_t memory_bytes = 0;
  if (memory_bytes < layer_bytes) {
    memory = testing::BenchMemory(layer_bytes);
    memory_bytes = layer_bytes;
    testing::FillNumbers(memory, layer_bytes / 2, PackFormat::kBf16);
  }
  std::vector<ExpertWeights> experts;
  for (int64_t e = 0; e < num_experts; ++e) {
    std::byte* at = memory + e * (gate_up_bytes + down_bytes);
    experts.push_back({.gate_up = {.data = at, .n = gate_up_n, .k = hidden, .format = format},
                       .down = {.data = at + gate_up_bytes, .n = hidden, .k = inter, .format = format}});
  }
  const int64_t num_rows = tokens * top_k;
  auto* rows = testing::BenchMemory(tokens * hidden * 2);
  testing::FillNumbers(rows, tokens * hidden, PackFormat::kBf16);
  auto* inter_rows = testing::BenchMemory(num_rows * (inter + 1) * 2);
  auto* out = reinterpret_cast<float*>(testing::BenchMemory(num_rows * hidden * 4));
  std::memset(out, 0, static_cast<size_t>(num_rows * hidden * 4));
  std::vector<const void*> addresses;
  for (int64_t r = 0; r < num_rows; ++r) addresses.push_back(rows + r * 7919 % tokens * hidden * 2);
  const std::vector<float> row_weights(static_cast<size_t>(num_rows), 0.5f);

  // Each round draws its experts anew, so weights come from memory also when only a few are read.
  double best_share = 0;
  testing::Rates best;
  std::vector<std::vector<int32_t>> routes;
  for (uint64_t i = 0; i < 16; ++i) routes.push_back(Route(tokens, num_experts, top_k, state.range(7), i));
  size_t round = 0;
  for (auto _ : state) {
    const std::vector<int32_t>& counts = routes[round++ % routes.size()];
    std::vector<int32_t> offsets = {0};
    int64_t active = 0;
    for (const int32_t count : counts) {
      offsets.push_back(offsets.back() + count);
      active += count > 0;
    }
    const ExpertsArgs args{.hidden = hidden,
                           .inter = inter,
                           .experts = experts,
                           .offsets = offsets.data(),
                           .rows = addresses.data(),
                           .row_weights = row_weights.data(),
                           .inter_rows = inter_rows,
                           .out = out,
                           .out_stride = hidden};
    const double start = testing::BenchSeconds(device);
    RunExperts(device, args);
    const double seconds = testing::BenchSeconds(device) - start;
    const testing::Rates rates{.bytes = static_cast<double>(active * (gate_up_bytes + down_bytes)),
                               .flops = 2.0 * static_cast<double>(num_rows * 3 * hidden * inter),
                               .best = seconds};
    const double share = std::max(rates.bytes, rates.flops / 9) / seconds;
    if (share > best_share) best = rates;
    best_share = std::max(share, best_share);
  }
  best.Report(state, device, format);
}

constexpr auto kDot = static_cast<int64_t>(Isa::kAvx512Bf16), kTiles = static_cast<int64_t>(Isa::kAmx),
               kBf16 = static_cast<int64_t>(PackFormat::kBf16), kFp8 = static_cast<int64_t>(PackFormat::kFp8);

void Layers(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"isa", "threads", "tokens", "experts", "top", "hidden", "inter", "skew", "format"})
      ->UseRealTime()
      ->MinTime(0.2);
  for (const int64_t format : {kBf16, kFp8}) {
    for (const int64_t threads : {1, 2}) {
      // Qwen3-30B-A3B
      for (const int64_t tokens : {1, 4, 8, 32, 128, 512})
        bench->Args({kDot, threads, tokens, 128, 8, 2048, 768, 1, format});
      bench->Args({kDot, threads, 512, 128, 8, 2048, 768, 0, format});
      for (const int64_t tokens : {1, 32, 512, 2048})
        bench->Args({kTiles, threads, tokens, 128, 8, 2048, 768, 1, format});
      // The demo model
      for (const int64_t tokens : {1, 4, 16, 64})
        bench->Args({kDot, threads, tokens, 32, 4, 256, 64, 0, format});
    }
  }
}
BENCHMARK(RunLayer)->Apply(Layers);

}  // namespace
}  // namespace cadre::kernels
