#pragma once
// Tests that run on every instruction set; what the CPU lacks is a skip with its name.
#include <gtest/gtest.h>

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "kernels/device.h"

namespace cadre::kernels {

class EveryIsa : public ::testing::TestWithParam<Isa> {
 protected:
  void SetUp() override {
    if (!IsaSupported(GetParam())) GTEST_SKIP() << "this CPU lacks " << IsaName(GetParam());
  }
  /// A device whose threads live until the next call or the test's end.
  Device With(int num_threads) {
    pool_ = std::make_unique<sys::ThreadPool>(
        sys::ThreadPoolOptions{.num_threads = num_threads, .cpus = {}, .spin = false});
    return {GetParam(), pool_.get()};
  }
  std::vector<float> Normal(int64_t n, float scale = 1) {
    std::normal_distribution<float> normal(0, scale);
    std::vector<float> x(static_cast<size_t>(n));
    for (float& f : x) f = normal(random_);
    return x;
  }

  std::mt19937 random_{42};

 private:
  std::unique_ptr<sys::ThreadPool> pool_;
};

/// Without AMX, which has products of its own alone; the rest is kAvx512's.
inline auto AllIsas() {
  return ::testing::Values(Isa::kPortable, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16);
}
/// What this CPU supports, and the kernels of AMX over emulated tiles: for tests of products of bf16 rows.
inline std::vector<Isa> IsasForProducts() {
  std::vector<Isa> isas = SupportedIsas();
  if (IsaSupported(Isa::kAmxEmulated)) isas.push_back(Isa::kAmxEmulated);
  return isas;
}
inline std::string IsaParamName(const ::testing::TestParamInfo<Isa>& info) {
  return IsaName(info.param);
}

}  // namespace cadre::kernels
