#include "kernels/probe.h"

#include <gtest/gtest.h>

#include <vector>

#include "kernels/probe_kernels.h"
#include "sys/memory.h"

namespace cadre::kernels {
namespace {

// A loop that the compiler shortened would report more than any machine has.
TEST(Probe, RatesArePossible) {
  sys::ThreadPool pool({.num_threads = 2, .cpus = {}, .spin = false});
  for (const Isa isa : SupportedIsas()) {
    for (const DType type : {DType::kF32, DType::kBf16}) {
      const auto rates =
          MeasureRates({.isa = isa, .pool = &pool}, type, {.buffer_bytes = 64 << 20, .seconds = 0.02});
      ASSERT_TRUE(rates.has_value());
      EXPECT_GT(rates->read_bytes_per_s, 0) << IsaName(isa);
      EXPECT_LT(rates->read_bytes_per_s, 2e12) << IsaName(isa);
      EXPECT_GT(rates->operations_per_s, 0) << IsaName(isa);
      // Two cores of 6 GHz do 3 T bf16 operations in vectors, and 25 T in tiles.
      EXPECT_LT(rates->operations_per_s, isa == Isa::kAmx ? 26e12 : 4e12) << IsaName(isa);
    }
  }
}

TEST(Probe, ReadsEveryBlock) {
  constexpr int64_t kBytes = 1 << 16;
  for (const Isa isa : SupportedIsas()) {
    auto region = sys::AllocateRegion(kBytes);
    ASSERT_TRUE(region.has_value());
    EXPECT_EQ(ProbeKernelsOf(isa).read(region->data(), kBytes, 0), 0u);
    for (int64_t at = 0; at < kBytes; at += 4096 + 64) {
      region->data()[at] = std::byte{1};
      EXPECT_NE(ProbeKernelsOf(isa).read(region->data(), kBytes, 1024), 0u) << IsaName(isa) << " at " << at;
      region->data()[at] = std::byte{0};
    }
  }
}

}  // namespace
}  // namespace cadre::kernels
