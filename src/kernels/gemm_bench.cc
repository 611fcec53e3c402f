// Gemm over weights cycled from memory (or kept in cache), against the floor. Arguments: instruction set,
// format (0: f32, 1: bf16, 2: fp8), threads, m, n, k, columns of a scale (0: all).
#include "kernels/gemm.h"

#include "kernels/bench_testing.h"

namespace cadre::kernels {
namespace {

void RunGemm(benchmark::State& state) {
  const auto isa = static_cast<Isa>(state.range(0));
  const auto format = static_cast<PackFormat>(state.range(1));
  const int64_t m = state.range(3), n = state.range(4), k = state.range(5);
  if (!IsaSupported(isa)) return state.SkipWithError("this CPU lacks the instruction set");
  const Device device = testing::BenchDevice(isa, static_cast<int>(state.range(2)));
  // 512 MiB of weights defeat the caches; small layers stay in them, as they do when a small model runs.
  constexpr int64_t kBytes = 512 << 20;
  static std::byte* weights[4] = {};
  std::byte*& memory = weights[state.range(1)];
  if (memory == nullptr) {
    memory = testing::BenchMemory(kBytes);
    testing::FillNumbers(memory, kBytes / (format == PackFormat::kF32 ? 4 : 2), format);
  }
  const PackedMatrix shape{
      .n = n, .k = k, .format = format, .scale_block = static_cast<int32_t>(state.range(6))};
  const int64_t bytes = PackedBytes(shape), copies = bytes < (1 << 20) ? 1 : kBytes / bytes;
  std::byte* a = testing::BenchMemory(m * k * 4);
  auto* c = testing::BenchMemory(m * n * 4);
  std::memset(c, 0, static_cast<size_t>(m * n * 4));
  testing::FillNumbers(a, m * k, RowTypeOf(format) == DType::kBf16 ? PackFormat::kBf16 : PackFormat::kF32);
  testing::Rates rates{.bytes = static_cast<double>(bytes), .flops = 2.0 * static_cast<double>(m * n * k)};
  int64_t round = 0;
  for (auto _ : state) {
    PackedMatrix w = shape;
    w.data = memory + round++ % copies * bytes;
    const GemmArgs args{.m = m, .a = a, .a_stride = k, .w = w, .c = c, .c_stride = n};
    const double start = testing::BenchSeconds(device);
    Gemm(device, args);
    rates.best = std::min(rates.best, testing::BenchSeconds(device) - start);
  }
  rates.Report(state, device, format);
}

constexpr auto kBf16 = static_cast<int64_t>(PackFormat::kBf16), kF32 = static_cast<int64_t>(PackFormat::kF32),
               kFp8 = static_cast<int64_t>(PackFormat::kFp8);
constexpr auto kDot = static_cast<int64_t>(Isa::kAvx512Bf16), k512 = static_cast<int64_t>(Isa::kAvx512),
               k2 = static_cast<int64_t>(Isa::kAvx2), kPlain = static_cast<int64_t>(Isa::kPortable),
               kTiles = static_cast<int64_t>(Isa::kAmx);

void Shapes(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"isa", "format", "threads", "m", "n", "k", "block"})->UseRealTime()->MinTime(0.1);
  for (const int64_t threads : {1, 2}) {
    bench->Args({kDot, kBf16, threads, 1, 32000, 2048, 0});  // a head
    for (const int64_t m : {1, 2, 4, 6, 8, 12, 16, 32, 64, 128, 512})
      bench->Args({kDot, kBf16, threads, m, 4096, 2048, 0});
    bench->Args({kDot, kBf16, threads, 512, 2048, 4096, 0});
    bench->Args({kDot, kBf16, threads, 96, 1024, 16384, 0});  // two panels are 1 MiB
    for (const int64_t m : {1, 8, 32}) {                      // one expert
      bench->Args({kDot, kBf16, threads, m, 1536, 2048, 0});
      bench->Args({kDot, kBf16, threads, m, 2048, 768, 0});
    }
    for (const int64_t m : {1, 16, 64})
      bench->Args({kDot, kBf16, threads, m, 256, 256, 0});  // the demo model
    for (const int64_t block : {0, 128}) {
      bench->Args({kDot, kFp8, threads, 1, 1536, 2048, block});
      for (const int64_t m : {1, 2, 4, 6, 8, 12, 16, 32, 64, 128, 512})
        bench->Args({kDot, kFp8, threads, m, 4096, 2048, block});
    }
    for (const int64_t m : {1, 8, 16, 32, 64, 128, 256, 512}) {
      for (const int64_t format : {kBf16, kFp8}) bench->Args({kTiles, format, threads, m, 4096, 2048, 0});
    }
    for (const int64_t isa : {k512, k2, kPlain}) {
      for (const int64_t format : {kBf16, kF32, kFp8}) {
        for (const int64_t m : {1, 4, 12, 128}) bench->Args({isa, format, threads, m, 4096, 2048, 0});
      }
    }
  }
}
BENCHMARK(RunGemm)->Apply(Shapes);

}  // namespace
}  // namespace cadre::kernels
