#include "kernels/probe.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <vector>

#include "base/clock.h"
#include "kernels/probe_kernels.h"
#include "sys/memory.h"

namespace cadre::kernels {
namespace {

constexpr int64_t kGiB = int64_t{1} << 30;
constexpr int64_t kReadUnit = 512;
constexpr double kPassSeconds = 0.005;  // long against a fork and join
// Zen and Intel prefetch well by themselves; some virtual machines gain from a hint.
constexpr int64_t kAheads[] = {0, 1024, 4096};

int NumThreads(const Device& device) {
  return device.pool != nullptr ? device.pool->num_threads() : 1;
}

void OnAll(const Device& device, sys::FunctionRef<void(int)> work) {
  if (device.pool != nullptr) return device.pool->Run(work);
  work(0);
}

int64_t DefaultBufferBytes() {
  const int64_t cache = std::max<int64_t>(sysconf(_SC_LEVEL3_CACHE_SIZE), 0);
  return std::max(kGiB, 8 * cache);
}

double BestReadRate(const Device& device, const ProbeKernels& kernels, std::span<const std::byte> buffer,
                    double seconds) {
  const int64_t slice = static_cast<int64_t>(buffer.size()) / NumThreads(device) / kReadUnit * kReadUnit;
  std::atomic<uint64_t> sink = 0;
  double best = 0;
  const TimePoint start = Now();
  for (size_t pass = 0; pass < 2 * std::size(kAheads) || SecondsSince(start) < seconds; ++pass) {
    const int64_t ahead = kAheads[pass % std::size(kAheads)];
    const TimePoint begin = Now();
    OnAll(device, [&](int worker) { sink += kernels.read(buffer.data() + worker * slice, slice, ahead); });
    best = std::max(best, static_cast<double>(slice * NumThreads(device)) / SecondsSince(begin));
  }
  return best;
}

double BestOperationRate(const Device& device, int64_t (*products)(int64_t), double seconds) {
  int64_t rounds = 1 << 10;
  double best = 0;
  const TimePoint start = Now();
  while (SecondsSince(start) < seconds) {
    std::atomic<int64_t> operations = 0;
    const TimePoint begin = Now();
    OnAll(device, [&](int) { operations += products(rounds); });
    const double took = SecondsSince(begin);
    best = std::max(best, static_cast<double>(operations) / took);
    if (took < kPassSeconds) rounds *= 2;
  }
  return best;
}

}  // namespace

const ProbeKernels& ProbeKernelsOf(Isa isa) {
  switch (isa) {
    case Isa::kAvx2:
      return avx2::kProbeKernels;
    case Isa::kAvx512:
      return avx512::kProbeKernels;
    case Isa::kAvx512Bf16:
      return avx512_bf16::kProbeKernels;
    case Isa::kAmx: {
      static const ProbeKernels kernels = {.read = avx512::kProbeKernels.read,
                                           .bf16_products = amx::Bf16Products,
                                           .f32_products = avx512::kProbeKernels.f32_products};
      return kernels;
    }
    case Isa::kAmxEmulated:
      return avx512::kProbeKernels;
    case Isa::kPortable:
      break;
  }
  return portable::kProbeKernels;
}

Result<MachineRates> MeasureRates(const Device& device, DType type, const ProbeOptions& options) {
  const ProbeKernels& kernels = ProbeKernelsOf(device.isa);
  MachineRates rates;
  {
    const int64_t bytes = options.buffer_bytes > 0 ? options.buffer_bytes : DefaultBufferBytes();
    CADRE_ASSIGN(const sys::Region buffer,
                 sys::AllocateRegion(static_cast<size_t>(bytes), {.pool = device.pool}));
    sys::TouchPages(buffer.data(), buffer.bytes(), device.pool);
    rates.read_bytes_per_s = BestReadRate(device, kernels, buffer.span(), options.seconds);
  }
  rates.operations_per_s = BestOperationRate(
      device, type == DType::kBf16 ? kernels.bf16_products : kernels.f32_products, options.seconds);
  return rates;
}

}  // namespace cadre::kernels
