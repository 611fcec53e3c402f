#pragma once
// What packing in every format shares (pack.cc, pack_fp8.cc): a stretch of 16 rows is made into 32-bit units
// in the format of the panel, then transposed into the panel's lines. Compiled for the least CPU; loops are
// written so that they become vectors.
#include <bit>
#include <cstdint>
#include <cstring>
#include <type_traits>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "kernels/pack.h"

namespace cadre::kernels {

using Four = uint32_t __attribute__((vector_size(16)));

// Past the caches: packed weights are next read when others have taken their place, and a line that is
// written whole need not be read first. `to` is 16-byte aligned.
inline void StoreThrough(uint32_t* to, Four value) {
#ifdef __SSE2__
  _mm_stream_si128(reinterpret_cast<__m128i*>(to), std::bit_cast<__m128i>(value));
#else
  std::memcpy(to, &value, sizeof(value));
#endif
}

// Before another thread may be told that the lines are there.
inline void FinishStores() {
#ifdef __SSE2__
  _mm_sfence();
#endif
}

// Units of a row that are worked on at a time: 16 rows of them are 8 KiB, beside as much of the panel.
constexpr int64_t kStretch = 128;

// A stretch of 16 rows in the format of the panel, as 32-bit units: one f32, a pair of bf16, or four codes of
// fp8.
struct Units {
  alignas(64) uint32_t row[kPanelRows][kStretch];
};

// As tensor/dtype.h, without branches, so that it becomes vectors: the multiplication moves the exponent and
// makes subnormals normal, both exactly.
inline float HalfToFloatFlat(uint16_t h) {
  const uint32_t magnitude = uint32_t{h} << 13 & 0x0FFFE000;
  const uint32_t special = magnitude >= 0x0F800000 ? 0x7F800000 : 0;
  const uint32_t scaled = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) * 0x1p112f);
  return std::bit_cast<float>(scaled | special | (uint32_t{h} & 0x8000) << 16);
}

inline uint16_t ToBf16Flat(float f) {
  const uint32_t u = std::bit_cast<uint32_t>(f);
  const uint32_t rounded = (u + 0x7FFF + (u >> 16 & 1)) >> 16, nan = u >> 16 | 0x40;
  return static_cast<uint16_t>((u & 0x7FFFFFFF) > 0x7F800000 ? nan : rounded);
}

// Numbers at any address, of any type: files align tensors to nothing.
template <typename T>
using Loose __attribute__((may_alias, aligned(1))) = T;

template <DType kType>
float ValueAt(const char* from, int64_t i) {
  if constexpr (kType == DType::kF32) {
    return reinterpret_cast<const Loose<float>*>(from)[i];
  } else {
    const uint16_t bits = reinterpret_cast<const Loose<uint16_t>*>(from)[i];
    return kType == DType::kF16 ? HalfToFloatFlat(bits) : ToFloat(Bf16{bits});
  }
}

// `count` numbers of a row into units of kF32 or kBf16; an odd end is padded with a zero.
template <DType kType, PackFormat kFormat>
void Convert(const char* from, int64_t count, uint32_t* units) {
  using Target = std::conditional_t<kFormat == PackFormat::kF32, float, uint16_t>;
  auto* to = reinterpret_cast<Loose<Target>*>(units);
  for (int64_t i = 0; i < count; ++i) {
    if constexpr (kFormat == PackFormat::kF32) {
      to[i] = ValueAt<kType>(from, i);
    } else if constexpr (kType == DType::kBf16) {
      to[i] = reinterpret_cast<const Loose<uint16_t>*>(from)[i];
    } else {
      to[i] = ToBf16Flat(ValueAt<kType>(from, i));
    }
  }
  if (count % 2 == 1) to[count] = 0;  // only the last stretch of a row: k is padded to 2
}

// Line i of the panel is unit i of 16 rows, `row_bytes` apart at `rows`; with kPairs the 16-bit halves of
// each four units are sorted: the lower ones in front (pack.h, kFp8). Lines come in fours: returns how many
// are done.
template <bool kPairs>
int64_t TransposeAll(const char* rows, int64_t row_bytes, int64_t num_lines, uint32_t* panel) {
  using Eight = uint16_t __attribute__((vector_size(16)));
  const auto load = [&](int64_t row, int64_t unit) {
    Four v;
    std::memcpy(&v, rows + row * row_bytes + unit * 4, sizeof(v));
    return v;
  };
  for (int64_t i = 0; i + 4 <= num_lines; i += 4) {
    for (int64_t row = 0; row < kPanelRows; row += 4) {
      const Four a = load(row, i), b = load(row + 1, i), c = load(row + 2, i), d = load(row + 3, i);
      const Four ab_low = __builtin_shufflevector(a, b, 0, 4, 1, 5),
                 ab_high = __builtin_shufflevector(a, b, 2, 6, 3, 7);
      const Four cd_low = __builtin_shufflevector(c, d, 0, 4, 1, 5),
                 cd_high = __builtin_shufflevector(c, d, 2, 6, 3, 7);
      Four lines[4] = {__builtin_shufflevector(ab_low, cd_low, 0, 1, 4, 5),
                       __builtin_shufflevector(ab_low, cd_low, 2, 3, 6, 7),
                       __builtin_shufflevector(ab_high, cd_high, 0, 1, 4, 5),
                       __builtin_shufflevector(ab_high, cd_high, 2, 3, 6, 7)};
      for (int64_t j = 0; j < 4; ++j) {
        if constexpr (kPairs) {
          // In three steps, each one instruction of the least CPU.
          auto halves = std::bit_cast<Eight>(lines[j]);
          halves = __builtin_shufflevector(halves, halves, 0, 2, 1, 3, 4, 5, 6, 7);
          halves = __builtin_shufflevector(halves, halves, 0, 1, 2, 3, 4, 6, 5, 7);
          const auto pairs = std::bit_cast<Four>(halves);
          lines[j] = __builtin_shufflevector(pairs, pairs, 0, 2, 1, 3);
        }
        StoreThrough(panel + (i + j) * kPanelRows + row, lines[j]);
      }
    }
  }
  return num_lines / 4 * 4;
}

// The same for some rows and lines, one at a time.
template <bool kPairs>
void TransposeRows(const Units& units, int64_t line_begin, int64_t num_lines, int64_t lane_begin,
                   int64_t lane_end, uint32_t* panel) {
  for (int64_t lane = lane_begin; lane < lane_end; ++lane) {
    for (int64_t i = line_begin; i < num_lines; ++i) {
      const uint32_t unit = units.row[lane][i];
      if constexpr (kPairs) {
        auto* halves = reinterpret_cast<std::byte*>(panel + i * kPanelRows + lane / 4 * 4) + lane % 4 * 2;
        std::memcpy(halves, &unit, 2);
        std::memcpy(halves + 8, reinterpret_cast<const std::byte*>(&unit) + 2, 2);
      } else {
        panel[i * kPanelRows + lane] = unit;
      }
    }
  }
}

// Rows [lane_begin, lane_end) of the panel's `num_lines` lines.
template <bool kPairs>
void Transpose(const Units& units, int64_t num_lines, int64_t lane_begin, int64_t lane_end, uint32_t* panel) {
  int64_t done = 0;
  if (lane_end - lane_begin == kPanelRows)
    done = TransposeAll<kPairs>(reinterpret_cast<const char*>(units.row), sizeof(units.row[0]), num_lines,
                                panel);
  TransposeRows<kPairs>(units, done, num_lines, lane_begin, lane_end, panel);
}

}  // namespace cadre::kernels
