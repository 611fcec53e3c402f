#include "a2a/codec.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "base/random.h"

namespace cadre::a2a {
namespace {

std::vector<float> RoundTrip(const std::vector<float>& x, DType type) {
  const auto hidden = static_cast<int64_t>(x.size());
  std::vector<std::byte> row(x.size() * static_cast<size_t>(DTypeBytes(type)));
  std::vector<std::byte> packed(static_cast<size_t>(Fp8RowBytes(hidden)) + 1, std::byte{0x5A});
  for (size_t i = 0; i < x.size(); ++i) {
    if (type == DType::kF32) reinterpret_cast<float*>(row.data())[i] = x[i];
    if (type == DType::kBf16) reinterpret_cast<Bf16*>(row.data())[i] = ToBf16(x[i]);
  }
  PackFp8(row.data(), type, hidden, packed.data());
  EXPECT_EQ(packed.back(), std::byte{0x5A});
  UnpackFp8(packed.data(), type, hidden, row.data());
  std::vector<float> out;
  for (size_t i = 0; i < x.size(); ++i)
    out.push_back(type == DType::kF32 ? reinterpret_cast<float*>(row.data())[i]
                                      : ToFloat(reinterpret_cast<Bf16*>(row.data())[i]));
  return out;
}

// The format's own numbers, from its definition: 448 / 2^k steps of eighths.
TEST(Fp8, NumbersOfTheFormatAreExact) {
  std::vector<float> x;
  for (int exponent = -6; exponent <= 8; ++exponent) {
    for (int m = 8; m < 16; ++m) {
      if (exponent == 8 && m == 15) continue;  // would be 480; that code is NaN
      x.push_back(std::ldexp(static_cast<float>(m), exponent - 3));
    }
  }
  for (int m = 0; m < 8; ++m) x.push_back(-std::ldexp(static_cast<float>(m), -9));
  // Blocks of 128 with their largest at 448, so that the scale is 1.
  std::vector<float> row;
  for (size_t i = 0; i < x.size(); ++i) {
    if (row.size() % 128 == 0) row.push_back(448);
    row.push_back(x[i]);
  }
  EXPECT_EQ(RoundTrip(row, DType::kF32), row);
  EXPECT_EQ(RoundTrip(row, DType::kBf16), row);
}

TEST(Fp8, TiesGoToEvenAndLargeValuesKeepTheirScale) {
  // 17 lies between 16 and 18, 19 between 18 and 20.
  EXPECT_EQ(RoundTrip({448, 17, 19, -17, -19}, DType::kF32), (std::vector<float>{448, 16, 20, -16, -20}));
  // A power of two changes the scale only.
  EXPECT_EQ(RoundTrip({448 * 1024.0f, 17 * 1024.0f}, DType::kF32),
            (std::vector<float>{448 * 1024.0f, 16 * 1024.0f}));
}

TEST(Fp8, ErrorStaysWithinTheStatedBound) {
  for (const DType type : {DType::kF32, DType::kBf16}) {
    for (uint64_t seed = 0; seed < 40; ++seed) {
      std::vector<float> x;
      for (uint64_t i = 0; i < 1000; ++i) {
        const double u = UniformAt(seed, 5, 2 * i), v = UniformAt(seed, 5, 2 * i + 1);
        x.push_back(ToFloat(
            ToBf16(static_cast<float>((u * 2 - 1) * std::exp2(v * 30 - 25 + static_cast<double>(seed))))));
      }
      const auto got = RoundTrip(x, type);
      for (size_t block = 0; block < x.size(); block += 128) {
        double amax = 0;
        for (size_t i = block; i < std::min(block + 128, x.size()); ++i)
          amax = std::max<double>(amax, std::fabs(x[i]));
        for (size_t i = block; i < std::min(block + 128, x.size()); ++i) {
          const double size = std::fabs(x[i]);
          const double bound = std::max(size / 16, amax / 448 / 1024) * 1.00001;
          const double rounding = type == DType::kBf16 ? (size + bound) / 256 : 0;
          ASSERT_LE(std::fabs(static_cast<double>(got[i]) - x[i]), bound + rounding) << x[i];
        }
      }
    }
  }
}

TEST(Fp8, ZeroTinyAndNotANumber) {
  EXPECT_EQ(RoundTrip({0, -0.0f, 0}, DType::kF32), (std::vector<float>{0, 0, 0}));
  EXPECT_EQ(RoundTrip({1e-38f, -1e-39f}, DType::kF32), (std::vector<float>{0, 0}));
  for (const float bad : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    std::vector<float> row(200, 1.0f);
    row[3] = bad;
    const auto got = RoundTrip(row, DType::kF32);
    EXPECT_TRUE(std::isnan(got[0]) && std::isnan(got[3]) && std::isnan(got[127]));
    EXPECT_EQ(got[128], 1.0f);  // its neighbours' block is not touched
  }
  EXPECT_EQ(Fp8RowBytes(7168), 7168 + 224);
}

}  // namespace
}  // namespace cadre::a2a
