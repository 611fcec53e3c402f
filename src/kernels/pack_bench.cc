// PackRows of one expert's matrix: what loading a checkpoint costs beside reading it. Arguments: source type,
// format.
#include <ctime>

#include "kernels/bench_testing.h"

namespace cadre::kernels {
namespace {

void Pack(benchmark::State& state) {
  const auto type = static_cast<DType>(state.range(0));
  const auto format = static_cast<PackFormat>(state.range(1));
  constexpr int64_t kN = 1536, kK = 2048;
  std::byte* from = testing::BenchMemory(kN * kK * 4);
  testing::FillNumbers(from, kN * kK * DTypeBytes(type) / 2, PackFormat::kBf16);
  const PackedMatrix to{
      .data = testing::BenchMemory(PackedBytes(format, kN, kK)), .n = kN, .k = kK, .format = format};
  PackRows(to, 0, kN, from, type, kK);
  sys::ThreadPool pool({.num_threads = 1, .cpus = {}, .spin = false});
  double best = 1e9;
  for (auto _ : state) {
    const double start = testing::BenchSeconds({Isa::kPortable, &pool});
    PackRows(to, 0, kN, from, type, kK);
    best = std::min(best, testing::BenchSeconds({Isa::kPortable, &pool}) - start);
  }
  state.counters["read_GB/s"] = static_cast<double>(kN * kK * DTypeBytes(type)) / best * 1e-9;
}

void Types(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"from", "format"})->MinTime(0.1);
  for (const DType type : {DType::kBf16, DType::kF16, DType::kF32}) {
    for (const PackFormat format : {PackFormat::kBf16, PackFormat::kF32, PackFormat::kFp8}) {
      bench->Args({static_cast<int64_t>(type), static_cast<int64_t>(format)});
    }
  }
}
BENCHMARK(Pack)->Apply(Types);

}  // namespace
}  // namespace cadre::kernels
