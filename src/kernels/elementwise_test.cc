#include "kernels/elementwise.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/every_isa_test.h"
#include "kernels/ref/row_reference.h"
#include "kernels/row_threads.h"
#include "sys/memory.h"

namespace cadre::kernels {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();
const std::vector<int64_t> kWidths = {1, 2, 15, 16, 17, 31, 48, 63, 64, 65, 100, 128, 256, 300, 2048, 2880};

class ElementwiseTest : public EveryIsa {};
INSTANTIATE_TEST_SUITE_P(Isa, ElementwiseTest, AllIsas(), IsaParamName);

float At(const std::vector<std::byte>& bytes, DType type, int64_t i) {
  if (type == DType::kF32) return reinterpret_cast<const float*>(bytes.data())[i];
  return ToFloat(reinterpret_cast<const Bf16*>(bytes.data())[i]);
}

// Within `relative` of want; bf16 adds its rounding.
void ExpectNear(float got, double want, DType type, double relative, double absolute = 1e-30) {
  const double bound = std::abs(want) * (relative + (type == DType::kBf16 ? 1.0 / 256 : 0)) + absolute;
  EXPECT_NEAR(static_cast<double>(got), want, bound);
}

TEST_P(ElementwiseTest, ExpIsWithinTwoUlpEverywhere) {
  const RowKernels& kernels = RowKernelsFor(GetParam());
  std::vector<float> x;
  for (float f = -87.33f; f <= 88.37f; f += 0.00137f) x.push_back(f);
  for (float f = 1e-30f; f < 1; f *= 1.7f) x.insert(x.end(), {f, -f});
  std::vector<float> y(x.size());
  kernels.scaled_exp(x.data(), static_cast<int64_t>(x.size()), 0, 1, y.data());
  double worst = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double want = std::exp(static_cast<double>(x[i]));
    const double ulp = std::ldexp(1.0, std::ilogb(want) - 23);
    worst = std::max(worst, std::abs(static_cast<double>(y[i]) - want) / ulp);
  }
  EXPECT_LT(worst, 2.0);
  const std::vector<float> special = {0.0f, -0.0f, -88.0f, -1000.0f, -kInf, 89.0f, kInf, kNan};
  std::vector<float> out(special.size());
  kernels.scaled_exp(special.data(), static_cast<int64_t>(special.size()), 0, 1, out.data());
  EXPECT_EQ(std::vector<float>(out.begin(), out.end() - 1),
            (std::vector<float>{1.0f, 1.0f, 0.0f, 0.0f, 0.0f, kInf, kInf}));
  EXPECT_TRUE(std::isnan(out.back()));
}

TEST_P(ElementwiseTest, ExpDoesNotDependOnTheLane) {
  const RowKernels& kernels = RowKernelsFor(GetParam());
  const std::vector<float> x = Normal(40, 20);
  std::vector<float> all(40), one(1);
  kernels.scaled_exp(x.data(), 40, 0, 1, all.data());
  for (size_t i = 0; i < 40; ++i) {
    kernels.scaled_exp(&x[i], 1, 0, 1, one.data());
    EXPECT_EQ(one[0], all[i]);
  }
}

TEST_P(ElementwiseTest, ScaledExpShiftsAndScales) {
  const std::vector<float> x = Normal(37);
  std::vector<float> out(x.size());
  ScaledExp(With(1), x.data(), 37, 1.25f, 0.7f, out.data());
  for (size_t i = 0; i < x.size(); ++i) {
    EXPECT_NEAR(out[i], std::exp((static_cast<double>(x[i]) - 1.25) * 0.7), 2e-6 * (1 + out[i]));
  }
}

TEST_P(ElementwiseTest, SelectsAndSumsWhatIsLargeEnough) {
  for (const int64_t width : {1, 15, 16, 17, 300}) {
    std::vector<float> x = Normal(width);
    x[static_cast<size_t>(width / 2)] = kNan;
    x[static_cast<size_t>(width - 1)] = 0.5f;
    for (const float least : {-kInf, -0.5f, 0.0f, 0.5f, 100.0f}) {
      std::vector<int32_t> wanted, index(x.size());
      double sum = 0;
      for (size_t i = 0; i < x.size(); ++i) {
        if (!(x[i] >= least)) continue;
        wanted.push_back(static_cast<int32_t>(i));
        sum += x[i];
      }
      index.resize(static_cast<size_t>(SelectAtLeast(With(1), x.data(), width, least, index.data())));
      EXPECT_EQ(index, wanted) << width << " " << least;
      EXPECT_NEAR(SumAtLeast(With(1), x.data(), width, least), sum, 1e-9);
    }
  }
}

TEST_P(ElementwiseTest, RmsNormEqualsTheReference) {
  for (const int64_t width : kWidths) {
    for (const int64_t rows : {0, 1, 5, 300}) {
      const Device device = With(3);
      const int64_t stride = width + 3;
      std::vector<float> x = Normal(rows * stride, 3), weight = Normal(width),
                         f32(static_cast<size_t>(rows * width));
      for (const DType type : {DType::kF32, DType::kBf16}) {
        std::vector<std::byte> out(static_cast<size_t>(rows * (width + 2) * 4), std::byte{0x55});
        RmsNorm(device, {.num_rows = rows,
                         .width = width,
                         .x = x.data(),
                         .x_stride = stride,
                         .weight = weight.data(),
                         .eps = 1e-5f,
                         .out = out.data(),
                         .out_type = type,
                         .out_stride = width + 2,
                         .out_f32 = f32.data()});
        for (int64_t t = 0; t<rows; t += rows> 10 ? 37 : 1) {
          const auto want = ref::RmsNorm(x.data() + t * stride, weight.data(), width, 1e-5);
          for (int64_t c = 0; c < width; ++c) {
            ExpectNear(At(out, type, t * (width + 2) + c), want[static_cast<size_t>(c)], type, 1e-6);
            ExpectNear(f32[static_cast<size_t>(t * width + c)], want[static_cast<size_t>(c)], DType::kF32,
                       1e-6);
          }
          EXPECT_EQ(std::memcmp(out.data() + (t * (width + 2) + width) * DTypeBytes(type), "UUUU", 4), 0);
        }
      }
      // In place, and the same bits by itself.
      std::vector<float> place = x;
      RmsNorm(device, {.num_rows = rows,
                       .width = width,
                       .x = place.data(),
                       .x_stride = stride,
                       .weight = weight.data(),
                       .eps = 1e-5f,
                       .out = place.data(),
                       .out_type = DType::kF32,
                       .out_stride = stride,
                       .out_f32 = nullptr});
      for (int64_t t = 0; t < rows; ++t) {
        EXPECT_EQ(
            std::memcmp(place.data() + t * stride, f32.data() + t * width, static_cast<size_t>(width) * 4),
            0);
      }
    }
  }
}

TEST_P(ElementwiseTest, RopeEqualsTheReference) {
  for (const auto& [head_dim, begin, dim] : {std::tuple{32, 0, 32},
                                             {128, 0, 128},
                                             {128, 0, 64},
                                             {192, 128, 64},
                                             {40, 32, 8},
                                             {10, 3, 6},
                                             {2, 0, 2},
                                             {96, 0, 48},
                                             {16, 0, 0}}) {
    for (const bool interleaved : {false, true}) {
      for (const int64_t rows : {1, 200}) {
        const int heads = 3;
        const int64_t stride = heads * head_dim + 5;
        std::vector<float> x = Normal(rows * stride);
        const std::vector<float> before = x, cos = Normal(rows * dim / 2 + 1),
                                 sin = Normal(rows * dim / 2 + 1);
        Rope(With(2), {.num_rows = rows,
                       .num_heads = heads,
                       .head_dim = head_dim,
                       .x = x.data(),
                       .x_stride = stride,
                       .rotary_begin = begin,
                       .rotary_dim = dim,
                       .interleaved = interleaved,
                       .cos = cos.data(),
                       .sin = sin.data()});
        std::vector<double> want(before.begin(), before.end());
        for (int64_t t = 0; t < rows; ++t) {
          for (int h = 0; h < heads; ++h) {
            ref::Rope(want.data() + t * stride + h * head_dim + begin, dim, interleaved,
                      cos.data() + t * dim / 2, sin.data() + t * dim / 2);
          }
        }
        for (size_t i = 0; i < x.size(); ++i) ExpectNear(x[i], want[i], DType::kF32, 1e-6, 2e-6);
      }
    }
  }
}

TEST_P(ElementwiseTest, ConvertRowsRoundsToNearestEven) {
  const Device device = With(2);
  std::vector<float> x = Normal(40 * 1000);
  // 1 + 2^-8 lies between 1 and 1 + 2^-7: to the even one; 1 + 3 * 2^-8 up to 1 + 2^-6.
  const float cases[] = {1.00390625f, 1.01171875f, kInf, -kInf, kNan, 0.0f, -0.0f, 3.4e38f, -1e-37f};
  std::copy(std::begin(cases), std::end(cases), x.begin() + 5);
  for (const int64_t width : {1000, 33, 9, 15, 16}) {
    std::vector<Bf16> out(40 * 1001, Bf16{0x1234});
    ConvertRows(device, 40, width, x.data(), 1000, out.data(), DType::kBf16, 1001);
    std::vector<float> same(40 * 1001);
    ConvertRows(device, 40, width, x.data(), 1000, same.data(), DType::kF32, 1001);
    for (size_t t = 0; t < 40; ++t) {
      for (size_t c = 0; c < static_cast<size_t>(width); ++c) {
        const float from = x[t * 1000 + c];
        if (std::isnan(from)) {
          EXPECT_TRUE(std::isnan(ToFloat(out[t * 1001 + c])));
        } else {
          EXPECT_EQ(out[t * 1001 + c].bits, ToBf16(from).bits) << from;
        }
        EXPECT_EQ(std::bit_cast<uint32_t>(same[t * 1001 + c]), std::bit_cast<uint32_t>(from));
      }
      EXPECT_EQ(out[t * 1001 + static_cast<size_t>(width)].bits, 0x1234);
    }
  }
}

TEST_P(ElementwiseTest, SiluMulEqualsTheReference) {
  for (const int64_t inter : kWidths) {
    const int64_t rows = 30, stride = 2 * inter + 1;
    std::vector<float> x = Normal(rows * stride, 8);
    x[0] = -200;  // e^200 is infinite in f32
    for (const DType type : {DType::kF32, DType::kBf16}) {
      std::vector<std::byte> out(static_cast<size_t>(rows * inter * 4));
      SiluMul(With(2), {.num_rows = rows,
                        .inter = inter,
                        .gate_up = x.data(),
                        .gate_up_stride = stride,
                        .out = out.data(),
                        .out_type = type,
                        .out_stride = inter});
      for (int64_t t = 0; t < rows; ++t) {
        for (int64_t c = 0; c < inter; ++c) {
          const float* at = x.data() + t * stride;
          const double want = ref::Silu(static_cast<double>(at[c])) * static_cast<double>(at[inter + c]);
          ExpectNear(At(out, type, t * inter + c), want, type, 1e-6);
        }
      }
    }
  }
}

TEST_P(ElementwiseTest, CombineRowsSumsInRisingOrder) {
  for (const int64_t width : {1, 16, 40, 300, 2048}) {
    for (const int top_k : {1, 2, 8}) {
      for (const bool weighted : {false, true}) {
        for (const bool accumulate : {false, true}) {
          const int64_t rows = 50, experts = 120, stride = width + 4;
          const std::vector<float> from = Normal(experts * width), weights = Normal(rows * top_k);
          const std::vector<float> before = Normal(rows * stride);
          std::vector<int32_t> index(static_cast<size_t>(rows * top_k));
          for (int32_t& i : index) i = static_cast<int32_t>(random_() % 121) - 1;
          for (int k = 0; k < top_k; ++k) index[static_cast<size_t>(k)] = -1;
          std::vector<float> out = before;
          CombineRows(With(2), {.num_rows = rows,
                                .width = width,
                                .top_k = top_k,
                                .expert_rows = from.data(),
                                .index = index.data(),
                                .weights = weighted ? weights.data() : nullptr,
                                .out = out.data(),
                                .out_stride = stride,
                                .accumulate = accumulate});
          for (int64_t t = 0; t < rows; ++t) {
            for (int64_t c = 0; c < stride; ++c) {
              const float old = before[static_cast<size_t>(t * stride + c)],
                          got = out[static_cast<size_t>(t * stride + c)];
              if (c >= width) {
                EXPECT_EQ(got, old);
                continue;
              }
              double want = 0;
              for (int64_t k = t * top_k; k < (t + 1) * top_k; ++k) {
                const int32_t i = index[static_cast<size_t>(k)];
                if (i < 0) continue;
                want += (weighted ? static_cast<double>(weights[static_cast<size_t>(k)]) : 1.0) *
                        static_cast<double>(from[static_cast<size_t>(i * width + c)]);
              }
              EXPECT_NEAR(static_cast<double>(got), want + (accumulate ? static_cast<double>(old) : 0.0),
                          5e-6);
            }
          }
        }
      }
    }
  }
}

TEST_P(ElementwiseTest, GatherRowsScales) {
  const int64_t width = 77, vocab = 20;
  const std::vector<float> table = Normal(vocab * width);
  std::vector<Bf16> narrow;
  for (const float f : table) narrow.push_back(ToBf16(f));
  const std::vector<int32_t> ids = {3, 0, 19, 19, 7};
  std::vector<float> out(ids.size() * 77);
  for (const DType type : {DType::kF32, DType::kBf16}) {
    const void* from = type == DType::kF32 ? static_cast<const void*>(table.data()) : narrow.data();
    GatherRows(With(2), 5, ids.data(), from, type, width, 1.5f, out.data());
    for (size_t t = 0; t < ids.size(); ++t) {
      for (size_t c = 0; c < 77; ++c) {
        const size_t at = static_cast<size_t>(ids[t]) * 77 + c;
        EXPECT_EQ(out[t * 77 + c], 1.5f * (type == DType::kF32 ? table[at] : ToFloat(narrow[at])));
      }
    }
    const PackFormat format = type == DType::kF32 ? PackFormat::kF32 : PackFormat::kBf16;
    sys::Region bytes = *sys::AllocateRegion(static_cast<size_t>(PackedBytes(format, vocab, width)));
    const PackedMatrix packed{.data = bytes.data(), .n = vocab, .k = width, .format = format};
    PackRows(packed, 0, vocab, from, type, width);
    std::vector<float> again(out.size());
    GatherPackedRows(With(2), 5, ids.data(), packed, 1.5f, again.data());
    EXPECT_EQ(again, out);
  }
}

TEST_P(ElementwiseTest, ArgMaxTakesTheLowestOfTheLargest) {
  const Device device = With(2);
  for (const int64_t width : {1, 5, 16, 63, 64, 65, 1000, 32000}) {
    std::vector<float> x = Normal(width);
    for (const int64_t at : {int64_t{0}, width / 2, width - 1}) {
      std::vector<float> y = x;
      y[static_cast<size_t>(at)] = 100;
      y[static_cast<size_t>(width - 1)] = 100;
      if (at > 0) y[static_cast<size_t>(at - 1)] = kNan;
      EXPECT_EQ(ArgMax(device, y.data(), width), at);
    }
    std::fill(x.begin(), x.end(), kNan);
    EXPECT_EQ(ArgMax(device, x.data(), width), 0);
    x.back() = -kInf;
    EXPECT_EQ(ArgMax(device, x.data(), width), width - 1);
  }
}

TEST_P(ElementwiseTest, LogSumExpEqualsTheReference) {
  const Device device = With(2);
  for (const int64_t width : {1, 3, 16, 100, 32000}) {
    for (const float scale : {0.1f, 5.0f, 500.0f}) {
      std::vector<float> x = Normal(width, scale);
      const double top = static_cast<double>(*std::max_element(x.begin(), x.end()));
      double sum = 0;
      for (const float f : x) sum += std::exp(static_cast<double>(f) - top);
      EXPECT_NEAR(LogSumExp(device, x.data(), width), top + std::log(sum), 2e-7 + std::abs(top) * 1e-12);
    }
  }
  const std::vector<float> none(20, -kInf), high = {1, kInf, 2}, bad = {1, kNan, 2},
                                            mixed = {-kInf, 0, -kInf};
  EXPECT_EQ(LogSumExp(device, none.data(), 20), -std::numeric_limits<double>::infinity());
  EXPECT_EQ(LogSumExp(device, high.data(), 3), std::numeric_limits<double>::infinity());
  EXPECT_TRUE(std::isnan(LogSumExp(device, bad.data(), 3)));
  EXPECT_EQ(LogSumExp(device, mixed.data(), 3), 0.0);
}

}  // namespace
}  // namespace cadre::kernels
