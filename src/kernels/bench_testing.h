#pragma once
// What the benchmarks of the matrix kernels share: weights too large for any cache, on huge pages where the
// system gives them, and the floors that results are printed beside.
#include <benchmark/benchmark.h>
#include <sys/mman.h>

#include <cstring>
#include <ctime>
#include <thread>

#include "base/check.h"
#include "kernels/device.h"
#include "kernels/pack.h"

namespace cadre::kernels::testing {

/// Zeroed memory on huge pages; lives until the program ends.
inline std::byte* BenchMemory(int64_t bytes) {
  const auto size = static_cast<size_t>(RoundUp(bytes, 2 << 20) + (2 << 20));
  void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CADRE_CHECK(memory != MAP_FAILED);
  auto* aligned = reinterpret_cast<std::byte*>(RoundUp(reinterpret_cast<int64_t>(memory), 2 << 20));
  madvise(aligned, size - (2 << 20), MADV_HUGEPAGE);
  return aligned;
}

/// Fills with bf16 (or f32) numbers in (-2, -1] and [1, 2), quickly.
inline void FillNumbers(std::byte* bytes, int64_t count, PackFormat format) {
  uint32_t state = 1;
  for (int64_t i = 0; i < count; ++i) {
    state = state * 1664525 + 1013904223;
    if (format != PackFormat::kF32) {  // as fp8, two codes that are not NaN beside some that are: as fast
      reinterpret_cast<uint16_t*>(bytes)[i] = static_cast<uint16_t>((state >> 16 & 0x807F) | 0x3F80);
    } else {
      reinterpret_cast<uint32_t*>(bytes)[i] = (state & 0x807FFFFF) | 0x3F800000;
    }
  }
}

/// A pool of `num_threads` threads, one for each CPU in turn; kept until another count is asked for.
inline Device BenchDevice(Isa isa, int num_threads) {
  static std::unique_ptr<sys::ThreadPool> pool;
  if (pool == nullptr || pool->num_threads() != num_threads) {
    std::vector<int> cpus;
    for (int i = 0; i < num_threads; ++i) cpus.push_back(i);
    const bool spin = num_threads <= static_cast<int>(std::thread::hardware_concurrency());
    pool.reset();
    pool = std::make_unique<sys::ThreadPool>(
        sys::ThreadPoolOptions{.num_threads = num_threads, .cpus = cpus, .spin = spin});
  }
  return {isa, pool.get()};
}

/// Time of the caller's CPU where it works alone, which others on the machine disturb less, else the clock on
/// the wall.
inline double BenchSeconds(const Device& device) {
  timespec now;
  clock_gettime(device.pool->num_threads() == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

/// Rates of the best round (others share the machine), beside the floor of 2 cores as measured. Zen 4: 28.3
/// and 53.6 GB/s read, 117 GFLOP/s a core in f32, 234 in bf16 where vdpbf16ps is used. With AMX, Emerald
/// Rapids: 17.2 and 33.4 GB/s, 2.9 TFLOP/s a core in tiles, 178 GFLOP/s in f32.
struct Rates {
  double bytes = 0, flops = 0;  // of one round
  double best = 1e9;            // seconds

  void Report(benchmark::State& state, const Device& device, PackFormat format) const {
    const int threads = device.pool->num_threads();
    const bool amx = device.isa == Isa::kAmx, bf16 = RowTypeOf(format) == DType::kBf16;
    const double bandwidth = threads == 1 ? (amx ? 17.2e9 : 28.3e9) : (amx ? 33.4e9 : 53.6e9);
    const double peak = threads * (amx                                      ? (bf16 ? 2.9e12 : 178e9)
                                   : bf16 && device.isa == Isa::kAvx512Bf16 ? 234e9
                                                                            : 117e9);
    const double floor = std::max(bytes / bandwidth, flops / peak);
    state.counters["GB/s"] = bytes / best * 1e-9;
    state.counters["GFLOP/s"] = flops / best * 1e-9;
    state.counters["best_us"] = best * 1e6;
    state.counters["floor_us"] = floor * 1e6;
    state.counters["of_floor"] = floor / best;
  }
};

}  // namespace cadre::kernels::testing
