#pragma once
// Shared by the tests of the matrix kernels: random matrices in memory whose unused parts are NaN.
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "base/random.h"
#include "kernels/isa.h"
#include "kernels/pack.h"

namespace cadre::kernels::testing {

/// Every instruction set there is; a test skips, by name, what this CPU lacks.
inline const std::vector<Isa> kEveryIsa = {Isa::kPortable,   Isa::kAvx2, Isa::kAvx512,
                                           Isa::kAvx512Bf16, Isa::kAmx,  Isa::kAmxEmulated};

#define SKIP_UNLESS_SUPPORTED(isa) \
  if (!IsaSupported(isa)) GTEST_SKIP() << "this CPU lacks " << IsaName(isa)

inline std::string IsaTestName(const ::testing::TestParamInfo<Isa>& info) {
  return IsaName(info.param);
}

inline std::vector<float> RandomFloats(int64_t count, uint64_t stream, float scale = 1) {
  std::vector<float> values(static_cast<size_t>(count));
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = scale * (static_cast<float>(Philox(7, stream, i)[0]) * 0x1p-31f - 1);
  }
  return values;
}

/// Rows of one type with a stride and an offset from alignment (in elements); all else in the memory is NaN.
class Rows {
 public:
  Rows(DType type, int64_t num_rows, int64_t k, int64_t stride, int64_t offset,
       const std::vector<float>& values)
      : type_(type), stride_(stride), offset_(offset) {
    bytes_.assign(static_cast<size_t>((offset + num_rows * stride + 1) * DTypeBytes(type)), std::byte{0xFF});
    for (int64_t r = 0; r < num_rows; ++r) {
      for (int64_t i = 0; i < k; ++i) {
        const float value = values[static_cast<size_t>(r * k + i)];
        if (type == DType::kBf16) {
          static_cast<Bf16*>(Row(r))[i] = ToBf16(value);
        } else {
          static_cast<float*>(Row(r))[i] = value;
        }
      }
    }
  }
  void* Row(int64_t row) { return bytes_.data() + (offset_ + row * stride_) * DTypeBytes(type_); }

 private:
  DType type_;
  int64_t stride_, offset_;
  std::vector<std::byte> bytes_;
};

/// A packed random matrix that owns its bytes, which were NaN before packing.
class Weight {
 public:
  Weight(PackFormat format, int64_t n, int64_t k, const std::vector<float>& values) {
    const auto bytes = static_cast<size_t>(PackedBytes(format, n, k));
    data_.reset(static_cast<std::byte*>(std::aligned_alloc(64, bytes)));
    std::memset(data_.get(), 0xFF, bytes);
    matrix_ = {.data = data_.get(), .n = n, .k = k, .format = format};
    PackRows(matrix_, 0, n, values.data(), DType::kF32, k);
  }
  /// fp8 as published: every finite code but the largest ones, scales of all magnitudes, for `block` columns
  /// each from `phase` of a block on (block 0: a scale a row).
  Weight(PackFormat format, int64_t n, int64_t k, int32_t block, int32_t phase, uint64_t stream) {
    matrix_ = {.n = n, .k = k, .format = format, .scale_block = block, .scale_phase = phase};
    const auto bytes = static_cast<size_t>(PackedBytes(matrix_));
    data_.reset(static_cast<std::byte*>(std::aligned_alloc(64, bytes)));
    std::memset(data_.get(), 0xFF, bytes);
    matrix_.data = data_.get();
    const std::vector<float> codes = RandomFloats(n * (k + 3), stream),
                             scales = RandomFloats(n * Fp8PanelOf(matrix_).num_groups, stream + 1, 0.1f);
    std::vector<uint8_t> bits;
    for (const float code : codes) bits.push_back(static_cast<uint8_t>(static_cast<int>(code * 64) & 0xC7));
    for (size_t i = 0; i < bits.size(); i += 3) bits[i] ^= 0x38;  // exponents 0, 7, 8 and 15
    for (uint8_t& b : bits) b = (b & 0x7F) == 0x7F ? 0x01 : b;
    PackScaledRows(matrix_, 0, n, bits.data(), k + 3, scales.data());
  }
  const PackedMatrix& matrix() const { return matrix_; }

 private:
  struct Free {
    void operator()(std::byte* memory) const { std::free(memory); }
  };
  std::unique_ptr<std::byte[], Free> data_;
  PackedMatrix matrix_;
};

}  // namespace cadre::kernels::testing
