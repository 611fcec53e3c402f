#pragma once
// e4m3: a sign, 4 bits of exponent (bias 7), 3 of mantissa; no infinities, NaN is all ones, the largest
// number is 448, the smallest 2^-9 (below 2^-6 in even steps of it).
#include <bit>
#include <cstdint>

namespace cadre {

constexpr float kFp8Largest = 448.0f;

/// The bf16 number with the same value: every code has one (NaN stays NaN, no subnormals).
constexpr uint16_t Fp8ToBf16Bits(uint8_t code) {
  const uint32_t sign = (code & 0x80u) << 8, exponent = code >> 3 & 15u, mantissa = code & 7u;
  if (exponent == 15 && mantissa == 7) return static_cast<uint16_t>(sign | 0x7FF0);
  if (exponent > 0) return static_cast<uint16_t>(sign | (exponent + 120) << 7 | mantissa << 4);
  if (mantissa == 0) return static_cast<uint16_t>(sign);
  // mantissa * 2^-9, its highest bit becoming the hidden one
  const uint32_t high = mantissa >= 4 ? 2 : mantissa >= 2 ? 1 : 0;
  return static_cast<uint16_t>(sign | (118 + high) << 7 | (mantissa << (7 - high) & 0x7Fu));
}

constexpr float Fp8ToFloat(uint8_t code) {
  return std::bit_cast<float>(uint32_t{Fp8ToBf16Bits(code)} << 16);
}

/// Round to nearest, ties to even. Past 448: 448; NaN and infinities: NaN. Choices are masks, so that loops
/// over it become vectors (a float addition that only one side needs keeps compilers from doing it).
inline uint8_t FloatToFp8(float x) {
  const auto bits = std::bit_cast<int32_t>(x), magnitude = bits & 0x7FFFFFFF;
  const int32_t rounded = ((magnitude + 0x7FFFF + (magnitude >> 20 & 1)) >> 20) - (120 << 3);  // bias 127 - 7
  // Below 2^-6: beside 2^14 the last place of a float is 2^-9.
  const int32_t small = std::bit_cast<int32_t>(std::bit_cast<float>(magnitude) + 0x1p14f) & 0xFF;
  const int32_t is_small = -(magnitude < 0x3C800000), is_large = -(magnitude > 0x43E00000);  // 2^-6, 448
  const int32_t is_special = -(magnitude >= 0x7F800000);
  int32_t code = (small & is_small) | (rounded & ~is_small);
  code = (0x7E & is_large) | (code & ~is_large);
  code |= 0x7F & is_special;
  return static_cast<uint8_t>((bits >> 24 & 0x80) | code);
}

}  // namespace cadre
