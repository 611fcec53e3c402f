#include "kernels/gemm.h"

#include <cmath>

#include "kernels/gemm_testing.h"
#include "kernels/ref/gemm_reference.h"

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

DType ActType(PackFormat format) {
  return format == PackFormat::kBf16 ? DType::kBf16 : DType::kF32;
}
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

// Everything for one weight: each row alone against the reference, then all row counts against the rows
// alone.
void CheckWeight(Isa isa, PackFormat format, Shape shape, const Options& options) {
  const auto [n, k] = shape;
  const int64_t most = kRowCounts.back();
  const DType a_type = ActType(format);
  const Weight weight(format, n, k, RandomFloats(n * k, 1));
  const std::vector<float> a_values = RandomFloats(most * k, 2), bias = RandomFloats(n, 3),
                           old = RandomFloats(most * n, 4);
  Rows a(a_type, most, k, k + 1, 1, a_values);
  GemmArgs args{.a_stride = k + 1,
                .w = weight.matrix(),
                .bias = options.bias ? bias.data() : nullptr,
                .c_type = options.c_type,
                .c_stride = n + 3,
                .accumulate = options.accumulate};
  const std::string what = std::string(IsaName(isa)) + (format == PackFormat::kBf16 ? " bf16 " : " f32 ") +
                           std::to_string(n) + "x" + std::to_string(k);

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
  for (const PackFormat format : {PackFormat::kF32, PackFormat::kBf16}) {
    for (const Shape shape : kShapes) {
      for (const Options& options : kOptions) {
        ASSERT_NO_FATAL_FAILURE(CheckWeight(GetParam(), format, shape, options));
      }
    }
  }
}

TEST_P(GemmTest, ManyRowsAreCutIntoSegmentsAndAgree) {
  SKIP_UNLESS_SUPPORTED(GetParam());
  const int64_t n = 40, k = 1537, m = 700;
  const Weight weight(PackFormat::kBf16, n, k, RandomFloats(n * k, 1));
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

TEST_P(GemmTest, NanAndInfinityStayInTheirRow) {
  SKIP_UNLESS_SUPPORTED(GetParam());
  const int64_t n = 20, k = 8;
  for (const PackFormat format : {PackFormat::kF32, PackFormat::kBf16}) {
    const Weight weight(format, n, k, std::vector<float>(static_cast<size_t>(n * k), 1.0f));
    std::vector<float> values(static_cast<size_t>(3 * k), 1.0f);
    values[2] = NAN;
    values[static_cast<size_t>(k) + 1] = INFINITY;
    Rows a(ActType(format), 3, k, k, 0, values);
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
