#include "nn/adapter.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <random>

#include "kernels/every_isa_test.h"

namespace cadre::nn {
namespace {

using kernels::PackedMatrix;
using kernels::PackFormat;

// Packed, and as the numbers that it holds then.
struct Matrix {
  std::vector<std::byte> bytes;
  PackedMatrix packed;
  std::vector<float> values;

  Matrix(int64_t n, int64_t k, PackFormat format, std::mt19937& rng)
      : bytes(static_cast<size_t>(kernels::PackedBytes(format, n, k)) + 64),
        values(static_cast<size_t>(n * k)) {
    std::normal_distribution<float> normal(0, 1);
    for (float& value : values) value = normal(rng);
    const auto address = reinterpret_cast<uintptr_t>(bytes.data());
    packed = {.data = bytes.data() + (64 - address % 64) % 64, .n = n, .k = k, .format = format};
    kernels::PackRows(packed, 0, n, values.data(), DType::kF32, k);
    kernels::UnpackRows(packed, 0, n, values.data(), k);
  }
  float At(int64_t row, int64_t col) const { return values[static_cast<size_t>(row * packed.k + col)]; }
};

// One adapter on a product with two parts, the second behind a gap.
struct Case {
  int64_t inputs = 37, outputs = 21, gap = 5;
  std::unique_ptr<Matrix> a, b0, b1;
  Adapter adapter;

  Case(int64_t rank0, int64_t rank1, PackFormat format, std::mt19937& rng)
      : a(std::make_unique<Matrix>(rank0 + rank1, inputs, format, rng)),
        b0(std::make_unique<Matrix>(outputs, rank0, PackFormat::kF32, rng)),
        b1(std::make_unique<Matrix>(outputs, rank1, PackFormat::kF32, rng)) {
    adapter.layers.resize(2);
    adapter.layers[1].qkv = {
        .a = a->packed,
        .parts = {{.b = b0->packed, .first_rank = 0, .first_output = 0},
                  {.b = b1->packed, .first_rank = rank0, .first_output = outputs + gap}}};
  }
  int64_t width() const { return 2 * outputs + gap; }

  // The slow twin: what is added to one row.
  std::vector<double> Added(const float* x) const {
    std::vector<double> out(static_cast<size_t>(width()));
    for (const auto& part : adapter.layers[1].qkv.parts) {
      const Matrix& b = part.first_output == 0 ? *b0 : *b1;
      for (int64_t r = 0; r < part.b.k; ++r) {
        double sum = 0;
        for (int64_t i = 0; i < inputs; ++i) sum += static_cast<double>(x[i]) * a->At(part.first_rank + r, i);
        for (int64_t n = 0; n < outputs; ++n)
          out[static_cast<size_t>(part.first_output + n)] += sum * b.At(n, r);
      }
    }
    return out;
  }
};

class LowRankTest : public kernels::EveryIsa {};

// Rows of three kinds: without an adapter, of one, of another; in pieces longer and shorter than what is
// multiplied at once.
TEST_P(LowRankTest, EqualsTheSlowTwinRowByRow) {
  const kernels::Device device = With(2);
  std::mt19937 rng(3);
  Arena arena(64 << 20);
  for (const DType type : {DType::kF32, DType::kBf16}) {
    const PackFormat format = type == DType::kF32 ? PackFormat::kF32 : PackFormat::kBf16;
    const Case one(4, 1, format, rng), other(16, 7, format, rng);
    const int64_t stride = one.inputs + 3, width = one.width() + 2;
    for (const int64_t num_rows : {1, 2, 7, 300, 700}) {
      SCOPED_TRACE(testing::Message() << DTypeName(type) << ", " << num_rows << " rows");
      std::vector<float> x(static_cast<size_t>(num_rows * stride)), y(static_cast<size_t>(num_rows * width));
      std::vector<Bf16> rounded(x.size());
      std::normal_distribution<float> normal(0, 1);
      for (size_t i = 0; i < x.size(); ++i) {
        x[i] = normal(rng);
        rounded[i] = ToBf16(x[i]);
        if (type == DType::kBf16) x[i] = ToFloat(rounded[i]);
      }
      for (float& value : y) value = normal(rng);
      std::vector<int32_t> rows[3];
      for (int32_t row = 0; row < num_rows; ++row)
        rows[num_rows == 300 ? 1 : std::uniform_int_distribution<>(0, 2)(rng)].push_back(row);
      const AdapterRows uses[] = {{&one.adapter, rows[1]}, {&other.adapter, rows[2]}};
      const StepContext context{.device = device, .adapters = uses};
      const void* const in = type == DType::kF32 ? static_cast<const void*>(x.data()) : rounded.data();
      std::vector<float> got = y;
      AddLowRank(context, {1, &LayerAdapter::qkv}, in, stride, got.data(), width, arena);
      AddLowRank(context, {0, &LayerAdapter::qkv}, in, stride, got.data(), width, arena);  // has none
      AddLowRank(context, {1, &LayerAdapter::o}, in, stride, got.data(), width, arena);
      EXPECT_EQ(arena.used(), 0);

      for (int kind = 0; kind < 3; ++kind) {
        for (const int32_t row : rows[kind]) {
          const float *before = &y[static_cast<size_t>(row * width)],
                      *after = &got[static_cast<size_t>(row * width)];
          if (kind == 0) {
            ASSERT_EQ(std::memcmp(before, after, static_cast<size_t>(width) * 4), 0) << row;
            continue;
          }
          const Case& c = kind == 1 ? one : other;
          const std::vector<double> added = c.Added(&x[static_cast<size_t>(row * stride)]);
          for (int64_t n = 0; n < width; ++n) {
            const double wanted = before[n] + (n < c.width() ? added[static_cast<size_t>(n)] : 0);
            ASSERT_NEAR(after[n], wanted, 1e-4 * (1 + std::abs(wanted))) << row << " " << n;
          }
          // The same bits alone.
          std::vector<float> alone = y;
          const AdapterRows use{&c.adapter, {&row, 1}};
          const StepContext single{.device = device, .adapters = {&use, 1}};
          AddLowRank(single, {1, &LayerAdapter::qkv}, in, stride, alone.data(), width, arena);
          ASSERT_EQ(
              std::memcmp(&alone[static_cast<size_t>(row * width)], after, static_cast<size_t>(width) * 4),
              0);
        }
      }
    }
  }
}

TEST_P(LowRankTest, TakesNoMoreScratchThanItSays) {
  const kernels::Device device = With(1);
  std::mt19937 rng(4);
  const Case c(8, 8, PackFormat::kF32, rng);
  for (const int64_t num_rows : {1, 9, 256, 1000}) {
    Arena arena(LowRankScratchBytes(num_rows, c.inputs, c.outputs, 8));
    std::vector<float> x(static_cast<size_t>(num_rows * c.inputs)),
        y(static_cast<size_t>(num_rows * c.width()));
    std::vector<int32_t> rows;
    for (int32_t row = 0; row < num_rows; row += 2) rows.push_back(row);
    const AdapterRows use{&c.adapter, rows};
    const StepContext context{.device = device, .adapters = {&use, 1}};
    AddLowRank(context, {1, &LayerAdapter::qkv}, x.data(), c.inputs, y.data(), c.width(), arena);
  }
}

INSTANTIATE_TEST_SUITE_P(Isa, LowRankTest, kernels::AllIsas(), kernels::IsaParamName);

}  // namespace
}  // namespace cadre::nn
