// Attention beside its floor: the larger of bytes / bandwidth and operations / peak of two Zen 4 cores
// (53.6 GB/s; 469 GFLOP/s with bf16 products; half of it with one thread). `of_floor` is the share of that
// speed (the library prints its "/s" behind it); it may pass 1 where the cache holds the data.
//
//   kernels_bench --benchmark_filter=Attention
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <random>
#include <vector>

#include "kernels/attention.h"

namespace cadre::kernels {
namespace {

constexpr double kBandwidth = 53.6e9, kPeak = 469e9;

struct Setup {
  const char* name;
  int heads, kv_heads, k_dim, v_dim;
  bool latent;
  int sequences, q_len, kv_len;
};

// Heads of Qwen3-30B-A3B, of the demo model, of DeepSeek-V2-Lite and of DeepSeek-V3.
const Setup kSetups[] = {
    {"qwen3_decode_1x4k", 32, 4, 128, 128, false, 1, 1, 4096},
    {"qwen3_decode_32x512", 32, 4, 128, 128, false, 32, 1, 512},
    {"qwen3_prefill_512", 32, 4, 128, 128, false, 1, 512, 512},
    {"qwen3_prefill_512_at_4k", 32, 4, 128, 128, false, 1, 512, 4096},
    {"demo_decode_1x96", 8, 2, 32, 32, false, 1, 1, 96},
    {"demo_decode_32x96", 8, 2, 32, 32, false, 32, 1, 96},
    {"demo_prefill_64", 8, 2, 32, 32, false, 1, 64, 64},
    {"mha_decode_8x1k", 16, 16, 128, 128, false, 8, 1, 1024},
    {"mla16_decode_1x4k", 16, 1, 576, 512, true, 1, 1, 4096},
    {"mla128_decode_1x4k", 128, 1, 576, 512, true, 1, 1, 4096},
    {"mla16_prefill_256", 16, 1, 576, 512, true, 1, 256, 256},
};

void BM_Attention(benchmark::State& state) {
  const Setup& setup = kSetups[state.range(0)];
  const int num_threads = static_cast<int>(state.range(1));
  const Isa isa = static_cast<Isa>(state.range(2));
  if (!IsaSupported(isa)) return state.SkipWithError("not on this CPU");
  sys::ThreadPool pool({.num_threads = num_threads, .cpus = {}, .spin = true});
  const Device device = {isa, &pool};
  KvLayerView kv;
  kv.num_kv_heads = setup.kv_heads;
  kv.k_dim = setup.k_dim;
  kv.v_dim = setup.v_dim;
  kv.latent = setup.latent;
  kv.block_stride = KvBlockBytes(kv);
  const int blocks = (setup.kv_len + 15) / 16;
  const int64_t bytes = kv.block_stride * blocks * setup.sequences;
  std::vector<Bf16> memory(static_cast<size_t>(bytes / 2 + 32));
  kv.base = reinterpret_cast<std::byte*>((reinterpret_cast<uintptr_t>(memory.data()) + 63) / 64 * 64);
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  for (Bf16& b : memory) b = ToBf16(normal(random));
  std::vector<int32_t> table(static_cast<size_t>(blocks * setup.sequences));
  for (size_t i = 0; i < table.size(); ++i) table[i] = static_cast<int32_t>(i);
  std::shuffle(table.begin(), table.end(), random);
  const int64_t rows = int64_t{setup.sequences} * setup.q_len;
  std::vector<Bf16> q(static_cast<size_t>(rows * setup.heads * setup.k_dim));
  for (Bf16& b : q) b = ToBf16(normal(random));
  std::vector<Bf16> out(static_cast<size_t>(rows * setup.heads * setup.v_dim));
  std::vector<AttentionSequence> sequences;
  for (int s = 0; s < setup.sequences; ++s) {
    sequences.push_back({s * setup.q_len, setup.q_len, setup.kv_len, table.data() + s * blocks});
  }
  AttentionArgs args;
  args.kv = kv;
  args.num_heads = setup.heads;
  args.q = q.data();
  args.q_stride = int64_t{setup.heads} * setup.k_dim;
  args.scale = 1.0f / std::sqrt(static_cast<float>(setup.k_dim));
  args.sequences = sequences;
  args.out = out.data();
  args.out_stride = int64_t{setup.heads} * setup.v_dim;
  for (auto _ : state) Attention(device, args);

  const double pairs =
      static_cast<double>(setup.q_len) * (setup.kv_len - (setup.q_len - 1) / 2.0) * setup.sequences;
  const double flops = 2 * pairs * setup.heads * (setup.k_dim + setup.v_dim);
  const double floor = std::max(static_cast<double>(bytes) / kBandwidth, flops / kPeak) * (2.0 / num_threads);
  state.SetLabel(std::string(setup.name) + " " + IsaName(isa));
  using benchmark::Counter;
  state.counters["FLOP"] = Counter(flops, Counter::kIsIterationInvariantRate);
  state.counters["B"] = Counter(static_cast<double>(bytes), Counter::kIsIterationInvariantRate);
  state.counters["of_floor"] = Counter(floor, Counter::kIsIterationInvariantRate);
}

void Product(benchmark::internal::Benchmark* b) {
  for (int64_t i = 0; i < std::ssize(kSetups); ++i) {
    for (const int64_t threads : {1, 2}) {
      b->Args({i, threads, static_cast<int64_t>(BestIsa())});
    }
  }
  for (const Isa isa : SupportedIsas()) {
    if (isa == BestIsa()) continue;
    for (const int64_t i : {1, 2}) b->Args({i, 1, static_cast<int64_t>(isa)});
  }
}
BENCHMARK(BM_Attention)->Apply(Product)->UseRealTime()->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace cadre::kernels
