#pragma once
// Element types as checkpoints name them, and the two 16-bit floats as numbers.
#include <bit>
#include <cstdint>
#include <cstring>

namespace cadre {

enum class DType : uint8_t { kF32, kBf16, kF16, kF64, kF8E4M3, kI64, kI32, kI16, kI8, kU8, kBool };

constexpr int64_t DTypeBytes(DType type) {
  switch (type) {
    case DType::kF64:
    case DType::kI64:
      return 8;
    case DType::kF32:
    case DType::kI32:
      return 4;
    case DType::kBf16:
    case DType::kF16:
    case DType::kI16:
      return 2;
    case DType::kF8E4M3:
    case DType::kI8:
    case DType::kU8:
    case DType::kBool:
      return 1;
  }
  return 0;
}

constexpr const char* DTypeName(DType type) {
  switch (type) {
    case DType::kF32:
      return "float32";
    case DType::kBf16:
      return "bfloat16";
    case DType::kF16:
      return "float16";
    case DType::kF64:
      return "float64";
    case DType::kF8E4M3:
      return "float8_e4m3";
    case DType::kI64:
      return "int64";
    case DType::kI32:
      return "int32";
    case DType::kI16:
      return "int16";
    case DType::kI8:
      return "int8";
    case DType::kU8:
      return "uint8";
    case DType::kBool:
      return "bool";
  }
  return "?";
}

/// The upper half of a float. Trivial, so that rows can be copied and shared as bytes.
struct Bf16 {
  uint16_t bits;
};
static_assert(sizeof(Bf16) == 2);

inline float ToFloat(Bf16 b) {
  return std::bit_cast<float>(uint32_t{b.bits} << 16);
}

/// Round to nearest, ties to even; NaN stays NaN. Subnormals are kept (the vector units' own conversions
/// flush them; the difference is below 1e-38 and no kernel's order of sums depends on it).
inline Bf16 ToBf16(float f) {
  const uint32_t u = std::bit_cast<uint32_t>(f);
  if ((u & 0x7FFFFFFF) > 0x7F800000) return {static_cast<uint16_t>(u >> 16 | 0x40)};
  return {static_cast<uint16_t>((u + 0x7FFF + (u >> 16 & 1)) >> 16)};
}

/// IEEE half to float, exact.
inline float HalfToFloat(uint16_t h) {
  const uint32_t sign = uint32_t{h} >> 15 << 31;
  const uint32_t exponent = h >> 10 & 31, mantissa = h & 1023;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7F800000 | mantissa << 13);
  if (exponent > 0) return std::bit_cast<float>(sign | (exponent + 112) << 23 | mantissa << 13);
  const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;  // subnormal: mantissa * 2^-24
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(magnitude));
}

}  // namespace cadre
