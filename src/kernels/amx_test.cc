// The AMX kernels against arithmetic written out, over emulated tiles on any CPU with AVX-512 and over the
// instructions where there are any; and the emulation itself.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/amx/tiles.h"
#include "kernels/amx_check.h"
#include "kernels/amx_emulated/tiles.h"
#include "kernels/gemm.h"
#include "kernels/gemm_testing.h"
#include "sys/cpu.h"
#include "sys/limits.h"

namespace cadre::kernels {
namespace {

using testing::RandomFloats;
using testing::Rows;
using testing::Weight;

constexpr float kBig = 0x1p30f;

// A product of one row of activations and a panel in which every output has the same column.
template <class T>
float DotOf(float sum, const std::vector<float>& a, const std::vector<float>& b) {
  alignas(64) Bf16 rows[32] = {}, panel[16][16][2] = {};
  alignas(64) float sums[16];
  for (size_t k = 0; k < a.size(); ++k) {
    rows[k] = ToBf16(a[k]);
    for (auto& output : panel[k / 2]) output[k % 2] = ToBf16(b[k]);
  }
  for (float& s : sums) s = sum;
  ConfigureTiles<T>(1);
  T::template Load<0>(sums, 64);
  T::template Load<4>(rows, 64);
  T::template Load<6>(panel, 64);
  T::template Dot<0, 4, 6>();
  T::template Store<0>(sums, 64);
  T::Release();
  for (const float s : sums) EXPECT_EQ(std::bit_cast<uint32_t>(s), std::bit_cast<uint32_t>(sums[0]));
  return sums[0];
}

// As Intel's manual has it: what a plain chain, or one without flushing, would answer differently.
template <class T>
void CheckArithmetic() {
  const std::vector<float> ones(4, 1.0f);
  EXPECT_EQ(DotOf<T>(0, {1, 2, 3, 4}, {1, 1, 1, 1}), 10);
  EXPECT_EQ(DotOf<T>(0, {kBig, 1, -kBig, 1}, ones), 2) << "even and odd k are chains of their own";
  EXPECT_EQ(DotOf<T>(0, {kBig, -kBig, 1, 1}, ones), 0) << "and each rounds on its own";
  EXPECT_EQ(DotOf<T>(0x1p24f, {1, 1}, {1, 1}), 0x1p24f + 2) << "the sum is added last";
  EXPECT_EQ(DotOf<T>(0x1p24f, {1, 0, 1, 1}, {0.5f, 0, 0.5f, 1}), 0x1p24f + 2);
  EXPECT_EQ(DotOf<T>(0, {0x1p-130f}, {0x1p100f}), 0) << "subnormal in";
  EXPECT_EQ(DotOf<T>(0, {0x1p-100f}, {0x1p-40f}), 0) << "subnormal out";
  EXPECT_EQ(DotOf<T>(0, {0x1p-120f, 0, -0x1.8p-120f}, {0x1p-6f, 0, 0x1p-6f}), 0) << "on the way";
  EXPECT_EQ(DotOf<T>(0x1p-130f, {1}, {0x1p-126f}), 0x1p-126f) << "subnormal sum";
  EXPECT_EQ(DotOf<T>(0x1p-126f, {-1}, {0x1.8p-126f}), 0) << "subnormal result";
  EXPECT_EQ(DotOf<T>(1, {INFINITY}, {2}), INFINITY);
  EXPECT_TRUE(std::isnan(DotOf<T>(1, {INFINITY}, {0})));
  EXPECT_TRUE(std::isnan(DotOf<T>(1, {1, 1}, {NAN, 1})));
  // The fused product keeps what rounding it first would lose.
  EXPECT_EQ(DotOf<T>(0, {0x1.02p0f, 0, -1}, {0x1.02p0f, 0, 0x1.04p0f}), 0x1p-14f);
}

TEST(EmulatedTiles, ComputeAsTheManualSays) {
  CheckArithmetic<amx_emulated::Tiles>();
}

TEST(AmxTiles, ComputeAsTheManualSays) {
  SKIP_UNLESS_SUPPORTED(Isa::kAmx);
  CheckArithmetic<amx::Tiles>();
}

TEST(EmulatedTiles, AreTriedBeforeTheyAreTrusted) {
  SKIP_UNLESS_SUPPORTED(Isa::kAmxEmulated);
  WeightKernels kernels = amx_emulated::kBf16Kernels;
  EXPECT_TRUE(TilesMultiplyRight(kernels));
  kernels.tile[28][1] = [](const TileArgs& args) {  // 29 rows
    amx_emulated::kBf16Kernels.tile[28][1](args);
    args.out[28 * kTileStride + 31] += 1;
  };
  EXPECT_FALSE(TilesMultiplyRight(kernels));
}

// Only the configured rows are read and written.
template <class T>
void CheckRowsOfATile() {
  float in[3][16], out[16][16];
  for (int rows = 1; rows <= 3; ++rows) {
    for (auto& row : in) {
      for (float& x : row) x = static_cast<float>(&x - in[0]);
    }
    std::memset(out, 0xFF, sizeof(out));
    ConfigureTiles<T>(rows);
    T::template Load<0>(in, 64);
    T::template Store<0>(out, 64);
    T::Release();
    EXPECT_EQ(std::memcmp(in, out, static_cast<size_t>(rows) * 64), 0);
    for (int row = rows; row < 16; ++row) EXPECT_TRUE(std::isnan(out[row][0])) << row;
  }
}

TEST(EmulatedTiles, HaveTheRowsConfigured) {
  CheckRowsOfATile<amx_emulated::Tiles>();
}

TEST(AmxTiles, HaveTheRowsConfigured) {
  SKIP_UNLESS_SUPPORTED(Isa::kAmx);
  CheckRowsOfATile<amx::Tiles>();
}

TEST(EmulatedTilesDeathTest, FaultWhereTheInstructionsDo) {
  using amx_emulated::Tiles;
  const std::vector<float> memory(512);
  EXPECT_DEATH(Tiles::Load<0>(memory.data(), 64), "") << "no configuration";
  EXPECT_DEATH(
      {
        ConfigureTiles<Tiles>(3);
        Tiles::Release();
        Tiles::Zero<0>();
      },
      "");
  EXPECT_DEATH(
      {
        ConfigureTiles<Tiles>(20);  // sum 0 has 16 rows, activations 5 have 4
        (Tiles::Dot<0, 5, 6>());
      },
      "");
}

// Outputs of one row in the order that amx_templates.h states: steps of 32 columns from the beginning of each
// group of an fp8 scale, in each the even and the odd ones.
std::vector<float> RowInSteps(const PackedMatrix& w, const Bf16* row) {
  const bool fp8 = IsFp8(w.format);
  const int64_t lead = fp8 ? Fp8PanelOf(w).lead : 0, end = lead + w.k;
  std::vector<float> codes(static_cast<size_t>(w.n * w.k)), result;
  const auto scale_of = [&](int64_t output, int64_t group) {
    const Fp8Panel panel = Fp8PanelOf(w);
    const int64_t line = group == 0 ? 0 : panel.first_lines + (group - 1) * panel.group_lines + group;
    float scale;
    std::memcpy(&scale, w.data + output / 16 * panel.bytes() + line * 64 + output % 16 * 4, 4);
    return scale;
  };
  UnpackRows(w, 0, w.n, codes.data(), w.k);
  for (int64_t output = 0; output < w.n; ++output) {
    float sum = 0;
    int64_t group = 0;
    for (int64_t begin = 0; begin < end; ++group) {
      const Fp8Panel panel = fp8 ? Fp8PanelOf(w) : Fp8Panel{.first_lines = end};
      const int64_t group_end =
          std::min(end, begin + 4 * (group == 0 ? panel.first_lines : panel.group_lines));
      const float scale = fp8 ? scale_of(output, group) : 1;
      float chain = 0;
      for (int64_t step = begin; step < group_end; step += 32) {
        float part[2] = {0, 0};
        for (int64_t at = std::max(step, lead); at < std::min(step + 32, group_end); ++at) {
          const float weight = codes[static_cast<size_t>(output * w.k + at - lead)] / scale;
          part[at % 2] = std::fma(ToFloat(row[at - lead]), weight, part[at % 2]);
        }
        chain += part[0] + part[1];
      }
      sum = fp8 ? std::fma(chain, scale, sum) : chain;
      begin = group_end;
    }
    result.push_back(sum);
  }
  return result;
}

struct Published {
  int32_t block, phase;
};

class AmxGemm : public ::testing::TestWithParam<Isa> {};
INSTANTIATE_TEST_SUITE_P(Isa, AmxGemm, ::testing::Values(Isa::kAmxEmulated, Isa::kAmx), testing::IsaTestName);

void CheckAgainstSteps(Isa isa, const PackedMatrix& w, const char* what) {
  sys::ThreadPool pool({.num_threads = 1, .cpus = {}, .spin = false});
  const int64_t most = 40;
  Rows a(DType::kBf16, most, w.k, w.k + 3, 1, RandomFloats(most * w.k, 9));
  for (const int64_t m : {1, 5, 16, 17, 32, 33, 40}) {
    std::vector<float> c(static_cast<size_t>(m * w.n));
    Gemm({isa, &pool}, {.m = m, .a = a.Row(0), .a_stride = w.k + 3, .w = w, .c = c.data(), .c_stride = w.n});
    for (int64_t r = 0; r < m; ++r) {
      const std::vector<float> wanted = RowInSteps(w, static_cast<const Bf16*>(a.Row(r)));
      for (int64_t i = 0; i < w.n; ++i)
        ASSERT_EQ(c[static_cast<size_t>(r * w.n + i)], wanted[static_cast<size_t>(i)])
            << what << " k " << w.k << " m " << m << " row " << r << " output " << i;
    }
  }
}

TEST_P(AmxGemm, SumsInTheOrderStated) {
  SKIP_UNLESS_SUPPORTED(GetParam());
  for (const int64_t k : {1, 31, 32, 33, 64, 96, 130, 517}) {
    for (const int64_t n : {16, 70}) {
      const Weight bf16(PackFormat::kBf16, n, k, RandomFloats(n * k, 5)),
          fp8(PackFormat::kFp8, n, k, RandomFloats(n * k, 6));
      ASSERT_NO_FATAL_FAILURE(CheckAgainstSteps(GetParam(), bf16.matrix(), "bf16"));
      ASSERT_NO_FATAL_FAILURE(CheckAgainstSteps(GetParam(), fp8.matrix(), "fp8"));
    }
  }
}

// Scales that are powers of two, so that a weight over its scale is its code.
TEST_P(AmxGemm, BeginsAStepWithEachGroup) {
  SKIP_UNLESS_SUPPORTED(GetParam());
  for (const Published p : {Published{128, 0}, {128, 65}, {16, 0}, {16, 15}, {32, 8}, {64, 30}, {4, 3}}) {
    for (const int64_t k : {1, 40, 130, 300}) {
      const int64_t n = 35;
      const Weight weight(PackFormat::kFp8, n, k, p.block, p.phase, 11);
      PackRows(weight.matrix(), 0, n, RandomFloats(n * k, 12, 3).data(), DType::kF32, k);
      ASSERT_NO_FATAL_FAILURE(CheckAgainstSteps(GetParam(), weight.matrix(), "fp8 in groups"));
    }
  }
}

// Zeros fill the last step of a group on both sides: an infinity times a neighbour's zero would be NaN.
TEST_P(AmxGemm, AnInfinityStaysInItsGroup) {
  SKIP_UNLESS_SUPPORTED(GetParam());
  const int64_t n = 35, k = 300;
  sys::ThreadPool pool({.num_threads = 1, .cpus = {}, .spin = false});
  for (const Published p : {Published{16, 15}, {48, 0}, {128, 65}, {128, 126}}) {
    const Weight weight(PackFormat::kFp8, n, k, p.block, p.phase, 11);
    PackRows(weight.matrix(), 0, n, std::vector<float>(static_cast<size_t>(n * k), 1.0f).data(), DType::kF32,
             k);
    std::vector<float> values(static_cast<size_t>(k * k), 1.0f);
    for (size_t i = 0; i < static_cast<size_t>(k); ++i) values[i * k + i] = INFINITY;
    Rows a(DType::kBf16, k, k, k, 0, values);
    for (const int64_t m : {int64_t{1}, k}) {
      std::vector<float> c(static_cast<size_t>(k * n));
      for (int64_t r = 0; r < k; r += m) {
        Gemm({GetParam(), &pool}, {.m = m,
                                   .a = a.Row(r),
                                   .a_stride = k,
                                   .w = weight.matrix(),
                                   .c = c.data() + r * n,
                                   .c_stride = n});
      }
      for (size_t i = 0; i < c.size(); ++i) ASSERT_EQ(c[i], INFINITY) << p.block << ' ' << i << " of " << m;
    }
  }
}

// The instructions and their emulation, bit by bit: numbers of all magnitudes that do not meet the border of
// the subnormal ones, then whole products.
TEST(AmxTiles, EqualTheirEmulation) {
  SKIP_UNLESS_SUPPORTED(Isa::kAmx);
  for (uint64_t round = 0; round < 2000; ++round) {
    std::vector<float> a = RandomFloats(32, 3 * round), b = RandomFloats(32, 3 * round + 1);
    const std::vector<float> exponents = RandomFloats(65, 3 * round + 2, round % 2 == 0 ? 40 : 4);
    for (size_t k = 0; k < 32; ++k) {
      a[k] = std::ldexp(a[k], static_cast<int>(exponents[k]));
      b[k] = std::ldexp(b[k], static_cast<int>(exponents[32 + k]));
    }
    const float sum = exponents[64];
    ASSERT_EQ(DotOf<amx::Tiles>(sum, a, b), DotOf<amx_emulated::Tiles>(sum, a, b)) << round;
  }
}

TEST(AmxTiles, MakeTheProductsOfTheirEmulation) {
  SKIP_UNLESS_SUPPORTED(Isa::kAmx);
  sys::ThreadPool pool({.num_threads = 3, .cpus = {}, .spin = false});
  for (const PackFormat format : {PackFormat::kBf16, PackFormat::kFp8}) {
    for (const int64_t k : {33, 768, 1537}) {
      const int64_t n = 272, most = 300;
      const Weight weight(format, n, k, RandomFloats(n * k, 5));
      Rows a(DType::kBf16, most, k, k, 0, RandomFloats(most * k, 9));
      for (const int64_t m : {1, 16, 31, 300}) {
        std::vector<float> c[2];
        for (const Isa isa : {Isa::kAmx, Isa::kAmxEmulated}) {
          std::vector<float>& out = c[isa == Isa::kAmx];
          out.resize(static_cast<size_t>(m * n));
          Gemm({isa, &pool},
               {.m = m, .a = a.Row(0), .a_stride = k, .w = weight.matrix(), .c = out.data(), .c_stride = n});
        }
        ASSERT_EQ(std::memcmp(c[0].data(), c[1].data(), c[0].size() * 4), 0) << "k " << k << " m " << m;
      }
    }
  }
}

TEST(AmxIsa, IsChosenOnlyWhereItRuns) {
  EXPECT_EQ(*ParseIsa("amx"), Isa::kAmx);
  EXPECT_FALSE(ParseIsa("amx_emulated").has_value()) << "no setting";
  EXPECT_NE(BestIsa(), Isa::kAmxEmulated);
  for (const Isa isa : SupportedIsas()) EXPECT_NE(isa, Isa::kAmxEmulated);
  const std::vector<std::string> flags = sys::CpuFlags();
  const bool tiles = std::ranges::find(flags, "amx_tile") != flags.end();
  if (!tiles) {
    EXPECT_FALSE(IsaSupported(Isa::kAmx));
    const Status status = sys::RequestTileState();
    ASSERT_FALSE(status.has_value());
    EXPECT_EQ(status.error().code, Code::kUnsupported);
  }
  EXPECT_EQ(BestIsa() == Isa::kAmx, IsaSupported(Isa::kAmx));
}

}  // namespace
}  // namespace cadre::kernels
