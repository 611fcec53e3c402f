#include "a2a/codec.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include "tensor/fp8.h"

namespace cadre::a2a {
namespace {

constexpr float kTiny = 1e-30f;  // a block below is 0: its scale's inverse would not be finite

const std::array<float, 256>& Values() {
  static const std::array<float, 256> values = [] {
    std::array<float, 256> all;
    for (uint32_t code = 0; code < all.size(); ++code) all[code] = Fp8ToFloat(static_cast<uint8_t>(code));
    return all;
  }();
  return values;
}

float Load(const std::byte* row, DType type, int64_t i) {
  return type == DType::kBf16 ? ToFloat(reinterpret_cast<const Bf16*>(row)[i])
                              : reinterpret_cast<const float*>(row)[i];
}

}  // namespace

void PackFp8(const std::byte* row, DType type, int64_t hidden, std::byte* packed) {
  std::array<float, kFp8Block> block;
  std::byte* scales = packed + hidden;
  for (int64_t begin = 0; begin < hidden; begin += kFp8Block, scales += 4) {
    const int64_t n = std::min(kFp8Block, hidden - begin);
    float amax = 0;
    bool finite = true;
    for (int64_t i = 0; i < n; ++i) {
      const float x = Load(row, type, begin + i);
      block[static_cast<size_t>(i)] = x;
      finite &= std::isfinite(x);
      amax = std::max(amax, std::fabs(x));
    }
    const bool zero = amax < kTiny || !finite;
    const float scale = !finite ? std::numeric_limits<float>::quiet_NaN() : zero ? 0.0f : amax / kFp8Largest;
    const float inverse = zero ? 0.0f : kFp8Largest / amax;
    std::memcpy(scales, &scale, 4);
    for (int64_t i = 0; i < n; ++i) {
      const float x = block[static_cast<size_t>(i)];
      packed[begin + i] = static_cast<std::byte>(zero ? 0 : FloatToFp8(x * inverse));
    }
  }
}

void UnpackFp8(const std::byte* packed, DType type, int64_t hidden, std::byte* row) {
  const auto& values = Values();
  const std::byte* scales = packed + hidden;
  for (int64_t begin = 0; begin < hidden; begin += kFp8Block, scales += 4) {
    float scale;
    std::memcpy(&scale, scales, 4);
    for (int64_t i = begin; i < std::min(hidden, begin + kFp8Block); ++i) {
      const float x = values[static_cast<size_t>(packed[i])] * scale;
      if (type == DType::kBf16) {
        reinterpret_cast<Bf16*>(row)[i] = ToBf16(x);
      } else {
        reinterpret_cast<float*>(row)[i] = x;
      }
    }
  }
}

}  // namespace cadre::a2a
