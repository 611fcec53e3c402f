#include "kernels/gemm.h"

#include <cmath>

#include "kernels/gemm_testing.h"
#include "kernels/ref/gemm_reference.h"
#include "tensor/fp8.h"

namespace cadre::kernels {
namespace {

using testing::RandomFloats;
using testing::Rows;
using testing::Weight;

constexpr float kUntouched = -12345.0f;
const std::vector<int64_t> kRowCounts = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10,  11,
                                         12, 13, 14, 15, 16, 17, 31, 32, 33, 64, 100, 257};

struct Shape {
  int64_t n, k;
};
// From one output of one input, over odd ones, to some that are cut for many threads.
constexpr Shape kShapes[] = {{1, 1},   {15, 3},    {16, 2},    {17, 33},  {33, 16},
                             {64, 64}, {100, 127}, {161, 513}, {272, 256}};

int64_t Bytes(DType type) {
  return DTypeBytes(type);
}

struct Options {
  bool bias, accumulate;
  DType c_type;
};
constexpr Options kOptions[] = {{false, false, DType::kF32},  {true, false, DType::kF32},
                                {false, true, DType::kF32},   {true, true, DType::kF32},
                                {false, false, DType::kBf16}, {true, false, DType::kBf16}};

// C with the old contents given and a gap after each row that nobody may write.
struct Output {
  DType type;
  int64_t n, stride;
  Rows rows;
  Output(DType c_type, int64_t m, int64_t cols, const std::vector<float>& old)
      : type(c_type), n(cols), stride(cols + 3), rows(c_type, m, cols, cols + 3, 1, old) {}
  std::string Row(int64_t row) {
    return {static_cast<const char*>(rows.Row(row)), static_cast<size_t>(n * Bytes(type))};
  }
  bool GapsUntouched(int64_t m) {
    for (int64_t r = 0; r < m; ++r) {
      const auto* gap = static_cast<const unsigned char*>(rows.Row(r)) + n * Bytes(type);
      for (int64_t i = 0; i < 3 * Bytes(type); ++i) {
        if (gap[i] != 0xFF) return false;
      }
    }
    return true;
  }
};

class GemmTest : public ::testing::TestWithParam<Isa> {};
INSTANTIATE_TEST_SUITE_P(Isa, GemmTest, ::testing::ValuesIn(testing::kEveryIsa), testing::IsaTestName);

// How weights come to be: packed from numbers, or fp8 as published with scales of `block` columns.
struct Kind {
  const char* name;
  PackFormat format;
  bool published = false;
  int32_t block = 0, phase = 0;
};
constexpr Kind kKinds[] = {{"f32", PackFormat::kF32},
                           {"bf16", PackFormat::kBf16},
                           {"fp8", PackFormat::kFp8},
                           {"fp8 for f32", PackFormat::kFp8F32},
                           {"fp8 per row", PackFormat::kFp8, true},
                           {"fp8 per 128", PackFormat::kFp8, true, 128},
                           {"fp8 per 128 for f32", PackFormat::kFp8F32, true, 128},
                           {"fp8 per 128 from 65", PackFormat::kFp8, true, 128, 65},
                           {"fp8 per 128 from 126 for f32", PackFormat::kFp8F32, true, 128, 126},
                           {"fp8 per 16 from 15", PackFormat::kFp8, true, 16, 15},
                           {"fp8 per 32 from 8", PackFormat::kFp8, true, 32, 8}};

Weight MakeWeight(const Kind& kind, int64_t n, int64_t k) {
  if (kind.published) return Weight(kind.format, n, k, kind.block, kind.phase, 1);
  return Weight(kind.format, n, k, RandomFloats(n * k, 1));
}

// Everything for one weight: each row alone against the reference, then all row counts against the rows
// alone.
void CheckWeight(Isa isa, const Kind& kind, Shape shape, const Options& options) {
  const auto [n, k] = shape;
  const int64_t most = kRowCounts.back();
  const DType a_type = RowTypeOf(kind.format);
  const Weight weight = MakeWeight(kind, n, k);
  const std::vector<float> a_values = RandomFloats(most * k, 2), bias = RandomFloats(n, 3),
                           old = RandomFloats(most * n, 4);
  Rows a(a_type, most, k, k + 1, 1, a_values);
  GemmArgs args{.a_stride = k + 1,
                .w = weight.matrix(),
                .bias = options.bias ? bias.data() : nullptr,
                .c_type = options.c_type,
                .c_stride = n + 3,
                .accumulate = options.accumulate};
  const std::string what =
      std::string(IsaName(isa)) + " " + kind.name + " " + std::to_string(n) + "x" + std::to_string(k);

  sys::ThreadPool one({.num_threads = 1, .cpus = {}, .spin = false});
  std::vector<std::string> alone;
  Output single(options.c_type, most, n, old), reference(options.c_type, most, n, old);
  for (int64_t r = 0; r < most; ++r) {
    args.m = 1;
    args.a = a.Row(r);
    args.c = single.rows.Row(r);
    Gemm({isa, &one}, args);
    alone.push_back(single.Row(r));
  }
  ASSERT_TRUE(single.GapsUntouched(most)) << what;

  args.m = 17;
  args.a = a.Row(0);
  args.c = reference.rows.Row(0);
  std::vector<float> magnitude(static_cast<size_t>(args.m * n));
  GemmReference(args, magnitude.data());
  for (int64_t r = 0; r < args.m; ++r) {
    if (isa == Isa::kPortable) {
      ASSERT_EQ(alone[static_cast<size_t>(r)], reference.Row(r)) << what;
    }
    for (int64_t i = 0; i < n; ++i) {
      const auto read = [&](Output& c) {
        return options.c_type == DType::kF32 ? static_cast<float*>(c.rows.Row(r))[i]
                                             : ToFloat(static_cast<Bf16*>(c.rows.Row(r))[i]);
      };
      const float got = read(single), wanted = read(reference);
      // The error of a chain of n sums grows with its square root; bf16 adds half of its last place, twice.
      const float scale = magnitude[static_cast<size_t>(r * n + i)] + 2;
      float tolerance = 0x1p-23f * scale * std::sqrt(static_cast<float>(k) + 1);
      if (options.c_type == DType::kBf16) tolerance += 0x1p-7f * std::fabs(wanted);
      ASSERT_NEAR(got, wanted, tolerance) << what << " row " << r << " column " << i;
    }
  }

  for (const int threads : {1, 2, 3, 5}) {
    sys::ThreadPool pool({.num_threads = threads, .cpus = {}, .spin = false});
    for (const int64_t m : kRowCounts) {
      if (threads > 1 && m != 1 && m != 13 && m != 33 && m != 257) continue;
      // Another stride and alignment for each, beginning at another row.
      const int64_t first = std::min<int64_t>(most - m, m), stride = k + m % 4, offset = threads;
      Rows other(a_type, m, k, stride, offset,
                 {a_values.begin() + static_cast<ptrdiff_t>(first * k),
                  a_values.begin() + static_cast<ptrdiff_t>((first + m) * k)});
      Output c(options.c_type, m, n, {old.begin() + static_cast<ptrdiff_t>(first * n), old.end()});
      args.m = m;
      args.a = other.Row(0);
      args.a_stride = stride;
      args.c = c.rows.Row(0);
      Gemm({isa, &pool}, args);
      for (int64_t r = 0; r < m; ++r) {
        ASSERT_EQ(c.Row(r), alone[static_cast<size_t>(first + r)])
            << what << " m " << m << " threads " << threads << " row " << r;
      }
      ASSERT_TRUE(c.GapsUntouched(m)) << what;
    }
  }
}

TEST_P(GemmTest, ARowsResultIsRightAndTheSameInAnyCompany) {
  SKIP_UNLESS_SUPPORTED(GetParam());
  for (const Kind& kind : kKinds) {
    for (const Shape shape : kShapes) {
      for (const Options& options : kOptions) {
        if (kind.block != 0 && &options != &kOptions[3] && &options != &kOptions[4])
          continue;  // bias and type
        ASSERT_NO_FATAL_FAILURE(CheckWeight(GetParam(), kind, shape, options));
      }
    }
  }
}

// Each count makes other blocks and tiles of rows.
TEST_P(GemmTest, EveryCountOfRowsUpTo70GivesEachRowItsBits) {
  SKIP_UNLESS_SUPPORTED(GetParam());
  const int64_t n = 83, k = 101, most = 70;
  sys::ThreadPool pool({.num_threads = 1, .cpus = {}, .spin = false});
  for (const Kind& kind : {kKinds[1], kKinds[2], kKinds[7], kKinds[10]}) {
    const Weight weight = MakeWeight(kind, n, k);
    Rows a(DType::kBf16, most, k, k + 1, 1, RandomFloats(most * k, 2));
    std::vector<float> alone(static_cast<size_t>(most * n));
    GemmArgs args{.m = 1, .a_stride = k + 1, .w = weight.matrix(), .c_stride = n};
    for (int64_t r = 0; r < most; ++r) {
      args.a = a.Row(r);
      args.c = alone.data() + r * n;
      Gemm({GetParam(), &pool}, args);
    }
    for (int64_t m = 2; m <= most; ++m) {
      std::vector<float> together(static_cast<size_t>(m * n) + 1, kUntouched);
      args.m = m;
      args.a = a.Row(most - m);
      args.c = together.data();
      Gemm({GetParam(), &pool}, args);
      ASSERT_EQ(std::memcmp(together.data(), alone.data() + (most - m) * n, static_cast<size_t>(m * n) * 4),
                0)
          << kind.name << " m " << m;
      ASSERT_EQ(together.back(), kUntouched);
    }
  }
}

TEST_P(GemmTest, ManyRowsAreCutIntoSegmentsAndAgree) {
  SKIP_UNLESS_SUPPORTED(GetParam());
  const int64_t n = 40, k = 1537, m = 700;
  for (const Kind& kind : {kKinds[1], kKinds[2], kKinds[7]}) {
    const Weight weight = MakeWeight(kind, n, k);
    Rows a(DType::kBf16, m, k, k, 0, RandomFloats(m * k, 2));
    sys::ThreadPool pool({.num_threads = 3, .cpus = {}, .spin = false});
    std::vector<float> all(static_cast<size_t>(m * n), kUntouched), alone(static_cast<size_t>(n));
    Gemm({GetParam(), &pool},
         {.m = m, .a = a.Row(0), .a_stride = k, .w = weight.matrix(), .c = all.data(), .c_stride = n});
    for (int64_t r = 0; r < m; ++r) {
      Gemm({GetParam(), &pool}, {.m = 1, .a = a.Row(r), .w = weight.matrix(), .c = alone.data()});
      ASSERT_EQ(std::memcmp(alone.data(), all.data() + r * n, static_cast<size_t>(n) * 4), 0) << r;
    }
  }
}

// Rows of the identity pick the weights out one by one: each code must come back as its number.
TEST_P(GemmTest, EveryFp8CodeIsItsNumberForFewRowsAndForMany) {
  SKIP_UNLESS_SUPPORTED(GetParam());
  constexpr int64_t kN = 16, kK = 256;
  for (const PackFormat format : {PackFormat::kFp8, PackFormat::kFp8F32}) {
    std::vector<uint8_t> codes(kN * kK);
    for (size_t i = 0; i < codes.size(); ++i) {
      const size_t code = (i + i / kK * 7) % kK;  // each row begins elsewhere
      codes[i] = static_cast<uint8_t>((code & 0x7F) == 0x7F ? 0 : code);
    }
    const std::vector<float> ones(kN, 1.0f), zeros(kN * kK);
    const Weight weight(format, kN, kK, zeros);
    PackScaledRows(weight.matrix(), 0, kN, codes.data(), kK, ones.data());
    std::vector<float> identity(kK * kK);
    for (size_t i = 0; i < kK; ++i) identity[i * kK + i] = 1;
    Rows a(RowTypeOf(format), kK, kK, kK, 0, identity);
    sys::ThreadPool pool({.num_threads = 1, .cpus = {}, .spin = false});
    std::vector<float> c(kN * kK);
    for (const int64_t m : {int64_t{1}, kK}) {
      for (int64_t r = 0; r < kK; r += m) {
        Gemm({GetParam(), &pool}, {.m = m,
                                   .a = a.Row(r),
                                   .a_stride = kK,
                                   .w = weight.matrix(),
                                   .c = c.data() + r * kN,
                                   .c_stride = kN});
      }
      for (size_t i = 0; i < c.size(); ++i)
        ASSERT_EQ(c[i], Fp8ToFloat(codes[i % kN * kK + i / kN])) << i << " of " << m;
    }
    // And NaN is NaN for its output alone.
    codes[3 * kK + 17] = 0x7F;
    codes[5 * kK + 200] = 0xFF;
    PackScaledRows(weight.matrix(), 0, kN, codes.data(), kK, ones.data());
    for (const int64_t m : {int64_t{2}, kK}) {
      Gemm({GetParam(), &pool},
           {.m = m, .a = a.Row(0), .a_stride = kK, .w = weight.matrix(), .c = c.data(), .c_stride = kN});
      for (int64_t i = 0; i < m * kN; ++i)
        ASSERT_EQ(std::isnan(c[static_cast<size_t>(i)]), i % kN == 3 || i % kN == 5) << i;
    }
  }
}

// Packed rows lie where earlier ones lay.
TEST_P(GemmTest, NothingIsReadOfEarlierRows) {
  SKIP_UNLESS_SUPPORTED(GetParam());
  const int64_t n = 40, most = 40, wide = 300;
  sys::ThreadPool pool({.num_threads = 1, .cpus = {}, .spin = false});
  std::vector<float> c(static_cast<size_t>(most * n));
  for (const Kind& kind : kKinds) {
    const DType type = RowTypeOf(kind.format);
    const Weight earlier = MakeWeight(kind, n, wide);
    Rows nan(type, most, wide, wide, 0, std::vector<float>(static_cast<size_t>(most * wide), NAN));
    for (const int64_t k : {1, 3, 31, 33, 63, 101}) {
      const Weight weight = MakeWeight(kind, n, k);
      Rows a(type, most, k, k, 0, RandomFloats(most * k, 2));
      for (const int64_t m : {int64_t{1}, int64_t{17}, most}) {
        GemmArgs args{.m = most, .a = nan.Row(0), .a_stride = wide, .w = earlier.matrix(), .c = c.data()};
        args.c_stride = n;
        Gemm({GetParam(), &pool}, args);
        args = {.m = m, .a = a.Row(0), .a_stride = k, .w = weight.matrix(), .c = c.data(), .c_stride = n};
        Gemm({GetParam(), &pool}, args);
        for (int64_t i = 0; i < m * n; ++i)
          ASSERT_FALSE(std::isnan(c[static_cast<size_t>(i)])) << kind.name << " k " << k << " m " << m;
      }
    }
  }
}

TEST_P(GemmTest, NanAndInfinityStayInTheirRow) {
  SKIP_UNLESS_SUPPORTED(GetParam());
  const int64_t n = 20, k = 8;
  for (const PackFormat format :
       {PackFormat::kF32, PackFormat::kBf16, PackFormat::kFp8, PackFormat::kFp8F32}) {
    const Weight weight(format, n, k, std::vector<float>(static_cast<size_t>(n * k), 1.0f));
    std::vector<float> values(static_cast<size_t>(3 * k), 1.0f);
    values[2] = NAN;
    values[static_cast<size_t>(k) + 1] = INFINITY;
    Rows a(RowTypeOf(format), 3, k, k, 0, values);
    sys::ThreadPool pool({.num_threads = 1, .cpus = {}, .spin = false});
    for (const DType c_type : {DType::kF32, DType::kBf16}) {
      Output c(c_type, 3, n, std::vector<float>(static_cast<size_t>(3 * n)));
      Gemm({GetParam(), &pool}, {.m = 3,
                                 .a = a.Row(0),
                                 .a_stride = k,
                                 .w = weight.matrix(),
                                 .c = c.rows.Row(0),
                                 .c_type = c_type,
                                 .c_stride = n + 3});
      const auto read = [&](int64_t r) {
        return c_type == DType::kF32 ? *static_cast<float*>(c.rows.Row(r))
                                     : ToFloat(*static_cast<Bf16*>(c.rows.Row(r)));
      };
      EXPECT_TRUE(std::isnan(read(0)));
      EXPECT_EQ(read(1), INFINITY);
      EXPECT_EQ(read(2), 8.0f);
    }
  }
}

}  // namespace
}  // namespace cadre::kernels
