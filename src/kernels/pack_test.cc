#include "kernels/pack.h"

#include <bit>
#include <cmath>

#include "kernels/gemm_testing.h"
#include "tensor/fp8.h"

namespace cadre::kernels {
namespace {

using testing::RandomFloats;

constexpr int64_t kOdd[] = {1, 2, 3, 15, 16, 17, 31, 33, 100, 129, 257};

struct Source {
  DType type;
  std::vector<std::byte> bytes;
  std::vector<float> values;  // what is in `bytes`, [n, stride]
};

Source MakeSource(DType type, int64_t count) {
  Source source{type, std::vector<std::byte>(static_cast<size_t>(count * DTypeBytes(type))),
                RandomFloats(count, 1)};
  for (int64_t i = 0; i < count; ++i) {
    float& value = source.values[static_cast<size_t>(i)];
    std::byte* at = source.bytes.data() + i * DTypeBytes(type);
    uint16_t half = ToBf16(value).bits;
    if (type == DType::kBf16) value = ToFloat(Bf16{half});
    if (type == DType::kF16) {
      half &= 0xBFFF;  // any finite pattern will do: half of the exponents are enough to keep it so
      value = HalfToFloat(half);
    }
    std::memcpy(at, type == DType::kF32 ? static_cast<const void*>(&value) : &half,
                static_cast<size_t>(DTypeBytes(type)));
  }
  return source;
}

TEST(Pack, ColumnShardOfAnyTypeComesBack) {
  for (const DType type : {DType::kF32, DType::kBf16, DType::kF16}) {
    for (const PackFormat format : {PackFormat::kF32, PackFormat::kBf16}) {
      for (const int64_t n : kOdd) {
        for (const int64_t k : kOdd) {
          const int64_t stride = k + 5, shard = 3;
          const Source source = MakeSource(type, n * stride);
          const testing::Weight weight(format, n, k, std::vector<float>(static_cast<size_t>(n * k), NAN));
          PackRows(weight.matrix(), 0, n, source.bytes.data() + shard * DTypeBytes(type), type, stride);
          std::vector<float> back(static_cast<size_t>(n * (k + 1)), -1.0f);
          UnpackRows(weight.matrix(), 0, n, back.data(), k + 1);
          for (int64_t r = 0; r < n; ++r) {
            for (int64_t i = 0; i < k; ++i) {
              const float value = source.values[static_cast<size_t>(r * stride + shard + i)];
              const float wanted = format == PackFormat::kBf16 ? ToFloat(ToBf16(value)) : value;
              ASSERT_EQ(back[static_cast<size_t>(r * (k + 1) + i)], wanted)
                  << DTypeName(type) << ' ' << n << ' ' << k;
            }
            ASSERT_EQ(back[static_cast<size_t>(r * (k + 1) + k)], -1.0f);
          }
        }
      }
    }
  }
}

TEST(Pack, LayoutIsAsDocumentedAndPaddingIsZero) {
  const int64_t n = 19, k = 5;
  const std::vector<float> values = RandomFloats(n * k, 2);
  for (const PackFormat format : {PackFormat::kF32, PackFormat::kBf16}) {
    const testing::Weight weight(format, n, k, values);
    const int64_t panel_bytes = PackedBytes(format, n, k) / 2;
    ASSERT_EQ(panel_bytes, 16 * 6 * (format == PackFormat::kF32 ? 4 : 2));
    for (int64_t row = 0; row < 32; ++row) {
      for (int64_t col = 0; col < 6; ++col) {
        const std::byte* panel = weight.matrix().data + row / 16 * panel_bytes;
        const float wanted = row < n && col < k ? values[static_cast<size_t>(row * k + col)] : 0;
        if (format == PackFormat::kF32) {
          ASSERT_EQ(reinterpret_cast<const float*>(panel)[col * 16 + row % 16], wanted);
        } else {
          const Bf16 got = reinterpret_cast<const Bf16*>(panel)[(col / 2 * 16 + row % 16) * 2 + col % 2];
          ASSERT_EQ(got.bits, ToBf16(wanted).bits) << row << ' ' << col;
        }
      }
    }
  }
}

TEST(Pack, PiecesInAnyOrderMakeTheSameBytes) {
  const int64_t n = 70, k = 131;
  const std::vector<float> values = RandomFloats(n * k, 3);
  for (const PackFormat format : {PackFormat::kF32, PackFormat::kBf16}) {
    const testing::Weight whole(format, n, k, values);
    const testing::Weight pieces(format, n, k, std::vector<float>(values.size(), NAN));
    for (const auto& [begin, count] :
         {std::pair{60, 10}, std::pair{3, 30}, std::pair{0, 3}, std::pair{33, 27}}) {
      PackRows(pieces.matrix(), begin, count, values.data() + begin * k, DType::kF32, k);
    }
    EXPECT_EQ(std::memcmp(whole.matrix().data, pieces.matrix().data,
                          static_cast<size_t>(PackedBytes(format, n, k))),
              0);
    std::vector<float> part(static_cast<size_t>(20 * k));
    UnpackRows(whole.matrix(), 25, 20, part.data(), k);
    for (size_t i = 0; i < part.size(); ++i) {
      const float value = values[static_cast<size_t>(25 * k) + i];
      ASSERT_EQ(part[i], format == PackFormat::kF32 ? value : ToFloat(ToBf16(value)));
    }
  }
}

TEST(Pack, RoundsToNearestEven) {
  // 1 + 2^-8 lies between two bf16 numbers: to the even one below; 1 + 3 * 2^-8: to the even one above.
  const std::vector<float> values = {1.0f + 0x1p-8f, 1.0f + 3 * 0x1p-8f, -1.0f - 0x1p-8f, 0x1p-130f};
  const testing::Weight weight(PackFormat::kBf16, 1, 4, values);
  std::vector<float> back(4);
  UnpackRows(weight.matrix(), 0, 1, back.data(), 4);
  EXPECT_EQ(back, (std::vector<float>{1.0f, 1.0f + 0x1p-6f, -1.0f, 0x1p-130f}));
}

TEST(Pack, EveryHalfAndEverySpecialFloatConverts) {
  // All 65,536 halves, then floats that are NaN, infinite, subnormal or about to overflow bf16.
  std::vector<uint16_t> halves(65536);
  for (size_t i = 0; i < halves.size(); ++i) halves[i] = static_cast<uint16_t>(i);
  std::vector<float> floats(65536, NAN);
  for (uint32_t i = 0; i < floats.size(); ++i)
    floats[i] = std::bit_cast<float>(i << 16 | (i * 40503 & 0xFFFF));
  std::vector<float> back(65536);
  for (const PackFormat format : {PackFormat::kF32, PackFormat::kBf16}) {
    const testing::Weight weight(format, 128, 512, back);
    const auto check = [&](const auto& wanted) {
      UnpackRows(weight.matrix(), 0, 128, back.data(), 512);
      for (size_t i = 0; i < back.size(); ++i) {
        const float value = format == PackFormat::kBf16 ? ToFloat(ToBf16(wanted(i))) : wanted(i);
        if (std::isnan(value)) {
          ASSERT_TRUE(std::isnan(back[i])) << i;
        } else {
          ASSERT_EQ(std::bit_cast<uint32_t>(back[i]), std::bit_cast<uint32_t>(value)) << i;
        }
      }
    };
    PackRows(weight.matrix(), 0, 128, halves.data(), DType::kF16, 512);
    check([&](size_t i) { return HalfToFloat(halves[i]); });
    PackRows(weight.matrix(), 0, 128, floats.data(), DType::kF32, 512);
    check([&](size_t i) { return floats[i]; });
  }
}

// Half a step of the code, or of the smallest numbers that the scale leaves.
float Fp8Error(float value, float largest) {
  return std::max(std::fabs(value) / 16, largest / 224 * 0x1p-10f) * 1.0001f;
}

TEST(Pack, Fp8StaysWithinHalfAStep) {
  for (const DType type : {DType::kF32, DType::kBf16, DType::kF16}) {
    for (const int32_t block : {0, 16, 128}) {
      for (const int64_t n : {1, 15, 16, 33}) {
        for (const int64_t k : {1, 5, 16, 130, 257}) {
          Source source = MakeSource(type, n * (k + 3));
          PackedMatrix to{.n = n, .k = k, .format = PackFormat::kFp8, .scale_block = block};
          std::vector<std::byte> memory(static_cast<size_t>(PackedBytes(to)), std::byte{0xFF});
          to.data = memory.data();
          PackRows(to, 0, n, source.bytes.data(), type, k + 3);
          std::vector<float> back(static_cast<size_t>(n * k));
          UnpackRows(to, 0, n, back.data(), k);
          for (int64_t r = 0; r < n; ++r) {
            for (int64_t c = 0; c < k; ++c) {
              const int64_t begin = block == 0 ? 0 : c / block * block,
                            end = block == 0 ? k : std::min<int64_t>(k, begin + block);
              float largest = 0;
              for (int64_t i = begin; i < end; ++i)
                largest = std::max(largest, std::fabs(source.values[static_cast<size_t>(r * (k + 3) + i)]));
              const float value = source.values[static_cast<size_t>(r * (k + 3) + c)];
              ASSERT_NEAR(back[static_cast<size_t>(r * k + c)], value, Fp8Error(value, largest))
                  << k << ' ' << c;
            }
          }
        }
      }
    }
  }
}

TEST(Pack, Fp8CodesAndScalesComeBackFromAnyPhase) {
  const int64_t n = 35, k = 150, stride = k + 2;
  std::vector<uint8_t> codes(static_cast<size_t>(n * stride));
  for (size_t i = 0; i < codes.size(); ++i)
    codes[i] = static_cast<uint8_t>(i * 37 % 254 < 127 ? i % 127 : 128 + i % 127);
  for (const int32_t block : {0, 4, 16, 128}) {
    for (const int32_t phase : {0, 1, 2, 3, 4, 65, 127}) {
      if (phase >= std::max(1, block)) continue;
      PackedMatrix to{.n = n, .k = k, .format = PackFormat::kFp8, .scale_block = block, .scale_phase = phase};
      const int64_t num_groups = Fp8PanelOf(to).num_groups;
      ASSERT_EQ(num_groups, block == 0 ? 1 : (phase + k - 1) / block + 1);
      const std::vector<float> scales = RandomFloats(n * num_groups, 5);
      std::vector<std::byte> memory(static_cast<size_t>(PackedBytes(to)), std::byte{0xFF});
      to.data = memory.data();
      for (const auto& [begin, count] : {std::pair{20, 15}, std::pair{0, 3}, std::pair{3, 17}})
        PackScaledRows(to, begin, count, codes.data() + begin * stride, stride,
                       scales.data() + begin * num_groups);
      std::vector<float> back(static_cast<size_t>(n * k));
      UnpackRows(to, 0, n, back.data(), k);
      for (int64_t i = 0; i < n * k; ++i) {
        const int64_t r = i / k, c = i % k, group = block == 0 ? 0 : (phase + c) / block;
        ASSERT_EQ(back[static_cast<size_t>(i)], Fp8ToFloat(codes[static_cast<size_t>(r * stride + c)]) *
                                                    scales[static_cast<size_t>(r * num_groups + group)]);
      }
      // Padding rows have no scale, so no bits of what was there before.
      for (int64_t lane = 3; lane < 16; ++lane) {
        float scale = -1;
        std::memcpy(&scale, memory.data() + 2 * Fp8PanelOf(to).bytes() + lane * 4, 4);
        ASSERT_EQ(scale, 0.0f);
      }
    }
  }
}

TEST(Pack, Fp8RoundsToTheNearestOfAllNumbers) {
  // Every float between two neighbouring codes goes to the nearer one, ties to the even code.
  for (uint32_t code = 0; code < 0x7E; ++code) {
    const float low = Fp8ToFloat(static_cast<uint8_t>(code)),
                high = Fp8ToFloat(static_cast<uint8_t>(code + 1));
    ASSERT_LT(low, high);
    const float middle = (low + high) / 2;
    EXPECT_EQ(FloatToFp8(low), code);
    EXPECT_EQ(FloatToFp8(-high), 0x80 | (code + 1));
    EXPECT_EQ(FloatToFp8(std::nextafter(middle, 0.0f)), code);
    EXPECT_EQ(FloatToFp8(std::nextafter(middle, 1e9f)), code + 1);
    EXPECT_EQ(FloatToFp8(middle), code % 2 == 0 ? code : code + 1);
  }
  EXPECT_EQ(FloatToFp8(1e30f), 0x7E);
  EXPECT_EQ(FloatToFp8(-460.0f), 0xFE);
  EXPECT_EQ(FloatToFp8(INFINITY), 0x7F);
  EXPECT_EQ(FloatToFp8(-NAN) & 0x7F, 0x7F);
}

TEST(Pack, Fp8OddRowsAreKept) {
  // All zero; far apart; with an infinity; all tiny.
  const std::vector<float> values = {0,        0, 0, 0,    448,    1,         0.5f, -448,
                                     INFINITY, 2, 3, -NAN, 1e-40f, 0x1p-126f, 0,    0x1p-125f};
  const testing::Weight weight(PackFormat::kFp8, 4, 4, values);
  std::vector<float> back(16);
  UnpackRows(weight.matrix(), 0, 4, back.data(), 4);
  for (size_t i = 0; i < 8; ++i) EXPECT_EQ(back[i], values[i]);
  EXPECT_TRUE(std::isnan(back[8]));
  EXPECT_EQ(back[9], 2);
  EXPECT_EQ(back[10], 3);
  EXPECT_TRUE(std::isnan(back[11]));
  EXPECT_EQ(back[13], 0x1p-126f);
  EXPECT_EQ(back[15], 0x1p-125f);
}

}  // namespace
}  // namespace cadre::kernels
