#pragma once
// Micro kernels for e4m3 weights, over the same V as gemm_templates.h, which has in addition
// DecodeFp8(from, first, second): 4 * kLanes codes to two raw registers of bf16 pairs, all 256 codes exactly.
//
// A tile walks the panel group by group: the sum of a group is a chain in rising k of products with the bare
// codes, and is then added to the output, times the group's scale, by one multiply-add. For few rows the
// codes become bf16 in registers, as the panel streams by; for many rows the panel is written out once as
// lines of bf16 (or f32) that all blocks of rows read. Both make the same chains of the same numbers: a row's
// bits do not depend on which it was.
#include "kernels/gemm_templates.h"

namespace cadre::kernels {
namespace {

// Sources of a column: one line of 64 codes, or that line decoded. Hold takes what must be kept in registers;
// parts are consecutive steps in k.

template <class V>
struct DirectDot {
  using Column = typename V::I;
  struct Held {
    typename V::I v[2];
  };
  static constexpr int kLineBytes = 64, kParts = 2;
  static Held Hold(const std::byte* b) {
    Held held;
    V::DecodeFp8(b, held.v[0], held.v[1]);
    return held;
  }
  static Column Part(const Held& held, const std::byte*, int part) { return held.v[part]; }
  static typename V::I LoadA(const uint32_t* a) { return V::BroadcastRaw(a); }
  static typename V::F Multiply(typename V::I a, Column b, typename V::F c) { return V::Dot(a, b, c); }
};

template <class V>
struct DecodedDot : DirectDot<V> {
  struct Held {};
  static constexpr int kLineBytes = 128;
  static Held Hold(const std::byte*) { return {}; }
  static typename V::I Part(Held, const std::byte* b, int part) { return V::LoadRaw(b + part * 64); }
};

template <class V>
struct DirectWidened {
  using Column = typename V::F;
  using Held = typename DirectDot<V>::Held;
  static constexpr int kLineBytes = 64, kParts = 4;
  static Held Hold(const std::byte* b) {
    Held held;
    V::DecodeFp8(b, held.v[0], held.v[1]);
    return held;
  }
  static Column Widen(typename V::I raw, int part) { return part % 2 == 0 ? V::Low(raw) : V::High(raw); }
  static Column Part(const Held& held, const std::byte*, int part) { return Widen(held.v[part / 2], part); }
  static typename V::F LoadA(const uint32_t* a) { return V::Broadcast(reinterpret_cast<const float*>(a)); }
  static typename V::F Multiply(typename V::F a, Column b, typename V::F c) { return V::Fma(a, b, c); }
};

template <class V>
struct DecodedWidened : DirectWidened<V> {
  struct Held {};
  static constexpr int kLineBytes = 128;
  static Held Hold(const std::byte*) { return {}; }
  static typename V::F Part(Held, const std::byte* b, int part) {
    return DirectWidened<V>::Widen(V::LoadRaw(b + part / 2 * 64), part);
  }
};

template <class V>
struct DecodedF32 : DirectWidened<V> {
  struct Held {};
  static constexpr int kLineBytes = 256;
  static Held Hold(const std::byte*) { return {}; }
  static typename V::F Part(Held, const std::byte* b, int part) {
    return V::Load(reinterpret_cast<const float*>(b + part * 64));
  }
};

// One line of each column. Whichever side is smaller is held in registers, the other passes through one.
template <class V, class Source, int kRows, int kCols>
[[gnu::always_inline]] inline void MultiplyLine(typename V::F (&acc)[kRows][kCols], const uint32_t* a,
                                                const std::byte* b, int64_t panel_bytes) {
  constexpr int kVecs = 16 / V::kLanes;
  const auto place = [&](int c) { return b + c / kVecs * panel_bytes + c % kVecs * V::kLanes * 4; };
  typename Source::Held held[kCols];
#pragma GCC unroll 16
  for (int c = 0; c < kCols; ++c) held[c] = Source::Hold(place(c));
#pragma GCC unroll 4
  for (int part = 0; part < Source::kParts; ++part) {
    if constexpr (kRows < kCols) {
      decltype(Source::LoadA(a)) row[kRows];
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) row[r] = Source::LoadA(a + part * kRows + r);
#pragma GCC unroll 16
      for (int c = 0; c < kCols; ++c) {
        const auto column = Source::Part(held[c], place(c), part);
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r) acc[r][c] = Source::Multiply(row[r], column, acc[r][c]);
      }
    } else {
      typename Source::Column column[kCols];
#pragma GCC unroll 16
      for (int c = 0; c < kCols; ++c) column[c] = Source::Part(held[c], place(c), part);
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        const auto row = Source::LoadA(a + part * kRows + r);
#pragma GCC unroll 16
        for (int c = 0; c < kCols; ++c) acc[r][c] = Source::Multiply(row, column[c], acc[r][c]);
      }
    }
  }
}

template <class V, template <class> class S, int kRows, int kPanels>
void GroupedTile(const TileArgs& args) {
  using Source = S<V>;
  constexpr int kVecs = 16 / V::kLanes, kCols = kPanels * kVecs, kParts = Source::kParts;
  const uint32_t* a = static_cast<const uint32_t*>(args.a);
  const std::byte* b = args.b;
  const std::byte* fetch = args.fetch;
  const int64_t panel_bytes = args.panel_bytes, fetch_panel = args.fetch_panel, fetch_step = args.fetch_step;
  int64_t fetch_lines = args.fetch_lines, group = args.first_lines;
  const auto fetch_one = [&] {
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) __builtin_prefetch(fetch + p * fetch_panel, 0, 2);
    fetch += fetch_step;
    if (--fetch_lines == 0) fetch += args.fetch_jump;
  };
  for (int64_t left = args.steps; left > 0;) {
    const std::byte* scales = b;
    fetch_one();
    b += 64;
    typename V::F acc[kRows][kCols];
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
      for (int c = 0; c < kCols; ++c) acc[r][c] = V::Zero();
    }
    const int64_t lines = group < left ? group : left;
    for (int64_t i = 0; i < lines; ++i) {
      fetch_one();
      MultiplyLine<V, Source, kRows, kCols>(acc, a, b, panel_bytes);
      a += kRows * kParts;
      b += Source::kLineBytes;
    }
    const bool first = left == args.steps;
#pragma GCC unroll 16
    for (int c = 0; c < kCols; ++c) {
      const auto scale =
          V::Load(reinterpret_cast<const float*>(scales + c / kVecs * panel_bytes) + c % kVecs * V::kLanes);
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        float* out = args.out + r * kTileStride + c * V::kLanes;
        V::Store(out, V::Fma(acc[r][c], scale, first ? V::Zero() : V::Load(out)));
      }
    }
    left -= lines;
    group = args.group_lines;
  }
}

// One panel to the lines that Decoded* sources read.
template <class V, int kLineBytes>
void DecodeFp8Panel(const DecodeArgs& args) {
  const std::byte* from = args.from;
  std::byte* to = args.to;
  int64_t group = args.first_lines;
  for (int64_t left = args.num_lines; left > 0; group = args.group_lines) {
    __builtin_memcpy(to, from, 64);  // scales
    to += 64;
    from += 64;
    const int64_t lines = group < left ? group : left;
    for (int64_t i = 0; i < lines; ++i, from += 64, to += kLineBytes) {
      __builtin_prefetch(from + 32 * 64, 0, 2);
#pragma GCC unroll 4
      for (int at = 0; at < 64; at += V::kLanes * 4) {
        typename V::I raw[2];
        V::DecodeFp8(from + at, raw[0], raw[1]);
        if constexpr (kLineBytes == 128) {
          __builtin_memcpy(to + at, &raw[0], sizeof(raw[0]));
          __builtin_memcpy(to + at + 64, &raw[1], sizeof(raw[1]));
        } else {
#pragma GCC unroll 4
          for (int k = 0; k < 4; ++k) {
            const auto wide = DirectWidened<V>::Widen(raw[k / 2], k);
            V::Store(reinterpret_cast<float*>(to + at + k * 64), wide);
          }
        }
      }
    }
    left -= lines;
  }
}

// Rows in units of four columns, zeros where the last unit passes the row, and in front of a shard that
// begins inside a line.
template <Units kUnits>
void PackBlockOfFours(const PackBlockArgs& args) {
  constexpr int kUnitsPerStep = kUnits == Units::kPairs ? 2 : 4;
  uint32_t* out = static_cast<uint32_t*>(args.out);
  const int64_t rows = args.num_rows, steps = (args.lead + args.k + 3) / 4;
  if (args.lead == 0) {
    const int64_t written =
        kUnits == Units::kF32 ? args.k : (args.k + 1) / 2 * (kUnits == Units::kWidened ? 2 : 1);
    for (int64_t i = written * rows; i < steps * kUnitsPerStep * rows; ++i) out[i] = 0;
    return PackBlock<kUnits>(args);
  }
  for (int64_t i = 0; i < steps * kUnitsPerStep * rows; ++i) out[i] = 0;
  for (int64_t r = 0; r < rows; ++r) {
    const char* row = static_cast<const char*>(args.rows[r]);
    for (int64_t k = 0; k < args.k; ++k) {
      const int64_t at = args.lead + k;
      if constexpr (kUnits == Units::kF32) {
        __builtin_memcpy(out + at * rows + r, row + k * 4, 4);
      } else {
        uint16_t bits;
        __builtin_memcpy(&bits, row + k * 2, 2);
        if constexpr (kUnits == Units::kWidened) {
          out[at * rows + r] = uint32_t{bits} << 16;
        } else {
          out[at / 2 * rows + r] |= uint32_t{bits} << at % 2 * 16;
        }
      }
    }
  }
}

template <class V, template <class> class S, int kRows, int kMax1, int kMax2, int kMax4>
constexpr void FillGroupedTiles(TileFn (&tile)[kMaxTileRows][3]) {
  if constexpr (kRows <= kMax1) tile[kRows - 1][0] = &GroupedTile<V, S, kRows, 1>;
  if constexpr (kRows <= kMax2) tile[kRows - 1][1] = &GroupedTile<V, S, kRows, 2>;
  if constexpr (kRows <= kMax4) tile[kRows - 1][2] = &GroupedTile<V, S, kRows, 4>;
  if constexpr (kRows > 1) FillGroupedTiles<V, S, kRows - 1, kMax1, kMax2, kMax4>(tile);
}

/// For bf16 rows: kDot where there is a dot product of pairs. Up to kDirect2 rows two panels are decoded as
/// they are read; past that the tables want the registers of the second one.
template <class V, bool kDot, int kMax1, int kMax2, int kMax4, int kDirect2>
constexpr WeightKernels MakeFp8Kernels(float line_ns) {
  WeightKernels kernels;
  if constexpr (kDot) {
    FillGroupedTiles<V, DirectDot, kMax1, kMax1, kDirect2, kMax4>(kernels.tile);
    FillGroupedTiles<V, DecodedDot, kMax1, kMax1, kMax2, kMax4>(kernels.decoded_tile);
    kernels.pack_block = &PackBlockOfFours<Units::kPairs>;
  } else {
    FillGroupedTiles<V, DirectWidened, kMax1, kMax1, kDirect2, kMax4>(kernels.tile);
    FillGroupedTiles<V, DecodedWidened, kMax1, kMax1, kMax2, kMax4>(kernels.decoded_tile);
    kernels.pack_block = &PackBlockOfFours<Units::kWidened>;
  }
  kernels.max_rows = kMax1;
  kernels.k_per_step = 4;
  kernels.a_step_bytes = kDot ? 8 : 16;
  kernels.line_ns = line_ns;
  kernels.decode = &DecodeFp8Panel<V, 128>;
  kernels.decoded_line_bytes = 128;
  return kernels;
}

/// For f32 rows: always from decoded lines.
template <class V, int kMax1, int kMax2, int kMax4>
constexpr WeightKernels MakeFp8F32Kernels(float line_ns) {
  WeightKernels kernels;
  FillGroupedTiles<V, DecodedF32, kMax1, kMax1, kMax2, kMax4>(kernels.tile);
  FillGroupedTiles<V, DecodedF32, kMax1, kMax1, kMax2, kMax4>(kernels.decoded_tile);
  kernels.decode_always = true;
  kernels.max_rows = kMax1;
  kernels.k_per_step = 4;
  kernels.a_step_bytes = 16;
  kernels.line_ns = line_ns;
  kernels.pack_block = &PackBlockOfFours<Units::kF32>;
  kernels.decode = &DecodeFp8Panel<V, 256>;
  kernels.decoded_line_bytes = 256;
  return kernels;
}

}  // namespace
}  // namespace cadre::kernels
