#pragma once
// Rows as 8-bit floats: e4m3 (4 bits of exponent, 3 of mantissa, no infinities, largest 448), each 128
// channels with an f32 scale of their own, amax / 448.
//
// Error of a value x of a block whose largest magnitude is amax: at most |x| / 16 (half a step of three
// mantissa bits), or amax / 448 / 1024 where x is so small that its code is subnormal; then the row's type
// rounds once more (bf16: |x| / 256). A block with a NaN or an infinity comes out as NaN.
#include <cstddef>
#include <cstdint>

#include "tensor/dtype.h"

namespace cadre::a2a {

constexpr int64_t kFp8Block = 128;

/// Bytes of a packed row: a byte per channel, then the scales. The start of a row is 4-byte aligned where
/// hidden is a multiple of 4; nothing relies on it.
constexpr int64_t Fp8RowBytes(int64_t hidden) {
  return hidden + (hidden + kFp8Block - 1) / kFp8Block * 4;
}

/// row [hidden] of type bf16 or f32 -> packed [Fp8RowBytes(hidden)].
void PackFp8(const std::byte* row, DType type, int64_t hidden, std::byte* packed);
/// And back.
void UnpackFp8(const std::byte* packed, DType type, int64_t hidden, std::byte* row);

}  // namespace cadre::a2a
