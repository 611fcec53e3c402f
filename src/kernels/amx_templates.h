#pragma once
// Micro kernels over AMX tiles, as templates over the tile instructions T and the vector type V of
// gemm_templates.h (with 16 lanes; DecodeFp8 as in fp8_templates.h).
//
// T: Configure(config), Release(), Zero<tile>(), Load<tile>(from, stride), Store<tile>(to, stride),
// Dot<sum, rows, panel>(); a tile's number is part of the instruction. Two exist: amx/tiles.h, the
// instructions, and amx_emulated/tiles.h, plain C++ that makes the same sums.
//
// A step is 32 values of k: 1 KiB of a panel, which is a tile as it lies, and a line of 64 bytes of each row.
// Dot makes two chains for each output from zero, of the even and of the odd k, and adds their sum to the
// output; steps follow each other in rising k. So an output's value depends on where its steps begin alone,
// which the weight decides (fp8: each group of a scale begins a step, zeros fill the last one), and neither
// on the number of rows nor on the panels beside it. Up to 16 rows pass a panel as one tile, with four sums
// beside each other; up to 32 as two, with 2 x 2 sums, so that a step loads four tiles for four products.
//
// Subnormal numbers are zero here, in and out; that is the instruction's arithmetic.
#include "kernels/fp8_templates.h"
#include "kernels/gemm_kernels.h"

namespace cadre::kernels {
namespace {

constexpr int kTileLines = 16;     // of a panel: pairs of k
constexpr int kTileBytes = 1024;   // of a panel
constexpr int kTileRows = 16;      // of activations, at most
constexpr int kMaxAmxRows = 32;    // two tiles
constexpr int kFp8StepLines = 8;   // lines of codes that make a step
constexpr int kFp8AtATime = 4;     // steps that are decoded in front of their products: 4 KiB a panel, in L1
constexpr int kRowBytes = 64;      // of one row in one step
constexpr int kFirstRowsTile = 4;  // sums are 0 to 3, activations 4 and 5, panels 6 and 7 (and 5)

// What LDTILECFG reads.
struct TileConfig {
  uint8_t palette = 1, start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};
static_assert(sizeof(TileConfig) == 64);

// For blocks of so many rows, whatever the number of panels.
template <class T>
void ConfigureTiles(int rows) {
  const int second = rows > kTileRows ? rows - kTileRows : 0, first = rows - second;
  TileConfig config;
  for (int tile = 0; tile < 8; ++tile) {
    const bool panel = tile > kFirstRowsTile + (second > 0);
    const bool lower = second > 0 && (tile == 2 || tile == 3 || tile == 5);
    config.row_bytes[tile] = 64;
    config.rows[tile] = static_cast<uint8_t>(panel ? kTileLines : lower ? second : first);
  }
  T::Configure(config);
}

template <class T, int kRowTiles, int kPanels>
[[gnu::always_inline]] inline void ZeroSums() {
  T::template Zero<0>();
  if constexpr (kPanels > 1) T::template Zero<1>();
  if constexpr (kRowTiles > 1 || kPanels > 2) T::template Zero<2>();
  if constexpr (kRowTiles * kPanels > 3) T::template Zero<3>();
}

// To rows of kTileStride floats.
template <class T, int kRowTiles, int kPanels>
[[gnu::always_inline]] inline void StoreSums(float* to) {
  constexpr int64_t kStride = kTileStride * 4;
  T::template Store<0>(to, kStride);
  if constexpr (kPanels > 1) T::template Store<1>(to + 16, kStride);
  if constexpr (kRowTiles == 1 && kPanels > 2) {
    T::template Store<2>(to + 32, kStride);
    T::template Store<3>(to + 48, kStride);
  }
  if constexpr (kRowTiles > 1) {
    float* lower = to + kTileRows * kTileStride;
    T::template Store<2>(lower, kStride);
    if constexpr (kPanels > 1) T::template Store<3>(lower + 16, kStride);
  }
}

// One step: `b` are the tiles of the panels, `panel_bytes` apart.
template <class T, int kRowTiles, int kPanels>
[[gnu::always_inline]] inline void MultiplyStep(const std::byte* a, const std::byte* b, int64_t panel_bytes) {
  T::template Load<4>(a, kRowBytes);
  if constexpr (kRowTiles == 1) {
    T::template Load<5>(b, kRowBytes);
    T::template Dot<0, 4, 5>();
    if constexpr (kPanels > 1) {
      T::template Load<6>(b + panel_bytes, kRowBytes);
      T::template Dot<1, 4, 6>();
    }
    if constexpr (kPanels > 2) {
      T::template Load<7>(b + 2 * panel_bytes, kRowBytes);
      T::template Dot<2, 4, 7>();
      T::template Load<5>(b + 3 * panel_bytes, kRowBytes);
      T::template Dot<3, 4, 5>();
    }
  } else {
    static_assert(kPanels <= 2);
    T::template Load<6>(b, kRowBytes);
    T::template Dot<0, 4, 6>();
    T::template Load<5>(a + kTileRows * kRowBytes, kRowBytes);
    T::template Dot<2, 5, 6>();
    if constexpr (kPanels > 1) {
      T::template Load<7>(b + panel_bytes, kRowBytes);
      T::template Dot<1, 4, 7>();
      T::template Dot<3, 5, 7>();
    }
  }
}

template <int kPanels>
[[gnu::always_inline]] inline void FetchStep(const std::byte* from, int64_t panel_bytes) {
#pragma GCC unroll 4
  for (int p = 0; p < kPanels; ++p, from += panel_bytes) {
    asm("" : "+r"(from));  // one pointer with displacements; else g++ 12 keeps 64 sums of pointers
#pragma GCC unroll 16
    for (int i = 0; i < kTileLines; ++i) __builtin_prefetch(from + i * 64, 0, 2);
  }
}

// Weights of bf16. What of the last step lies past the panel is not ours to read.
template <class T, int kRowTiles, int kPanels>
void PairsTile(const TileArgs& args) {
  const std::byte* a = static_cast<const std::byte*>(args.a);
  const std::byte* b = args.b;
  const int64_t panel_bytes = args.panel_bytes, row_bytes = args.rows * kRowBytes, lines = args.steps;
  const int64_t tail = lines - args.tail_steps;
  int64_t ahead = args.ahead, line = 0;
  ZeroSums<T, kRowTiles, kPanels>();
  for (; line + kTileLines <= lines; line += kTileLines) {
    if (line + kTileLines > tail) ahead = args.tail_ahead;
    if (ahead != 0) FetchStep<kPanels>(b + ahead, panel_bytes);
    MultiplyStep<T, kRowTiles, kPanels>(a, b, panel_bytes);
    a += row_bytes;
    b += kTileBytes;
  }
  if (line < lines) {
    alignas(64) std::byte last[kPanels * kTileBytes] = {};
    for (int p = 0; p < kPanels; ++p) {
      for (int64_t i = 0; i < lines - line; ++i)
        __builtin_memcpy(last + p * kTileBytes + i * 64, b + p * panel_bytes + i * 64, 64);
    }
    MultiplyStep<T, kRowTiles, kPanels>(a, last, kTileBytes);
  }
  StoreSums<T, kRowTiles, kPanels>(args.out);
}

// Lines of codes into lines of bf16, filled up to whole steps with zeros; returns where they end.
template <class V>
[[gnu::always_inline]] inline std::byte* DecodeSteps(const std::byte* from, int64_t num_lines,
                                                     std::byte* to) {
  static_assert(V::kLanes == 16);
  for (int64_t i = 0; i < num_lines; ++i, to += 128) {
    typename V::I raw[2];
    V::DecodeFp8(from + i * 64, raw[0], raw[1]);
    __builtin_memcpy(to, &raw[0], 64);
    __builtin_memcpy(to + 64, &raw[1], 64);
  }
  for (; num_lines % kFp8StepLines != 0; ++num_lines, to += 128) {
    const typename V::F zero = V::Zero();
    __builtin_memcpy(to, &zero, 64);
    __builtin_memcpy(to + 64, &zero, 64);
  }
  return to;
}

// A panel of fp8 into what ScaledTile<..., true> reads: for each group its scales, then its steps.
template <class V>
void DecodePanel(const DecodeArgs& args) {
  const std::byte* from = args.from;
  std::byte* to = args.to;
  int64_t group = args.first_lines;
  for (int64_t left = args.num_lines; left > 0; group = args.group_lines) {
    __builtin_memcpy(to, from, 64);
    const int64_t lines = group < left ? group : left;
    to = DecodeSteps<V>(from + 64, lines, to + 64);
    from += (lines + 1) * 64;
    left -= lines;
  }
}

// The lines that TileArgs names for fetching, as many at a time as were used.
template <int kPanels>
struct Fetcher {
  const std::byte* at;
  int64_t lines;

  [[gnu::always_inline]] void Fetch(const TileArgs& args, int64_t count) {
    if (args.fetch_step == 0) return;
    for (int64_t i = 0; i < count; ++i) {
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) __builtin_prefetch(at + p * args.fetch_panel, 0, 2);
      at += args.fetch_step;
      if (--lines == 0) at += args.fetch_jump;
    }
  }
};

// out = sums * scales, or += where it is not the first group: one multiply-add for each output.
template <class V, int kPanels>
[[gnu::always_inline]] inline void AddScaled(const float* sums, const TileArgs& args, const std::byte* scales,
                                             bool first) {
#pragma GCC unroll 4
  for (int p = 0; p < kPanels; ++p) {
    const auto scale = V::Load(reinterpret_cast<const float*>(scales + p * args.panel_bytes));
    for (int64_t r = 0; r < args.rows; ++r) {
      float* out = args.out + r * kTileStride + p * 16;
      const auto sum = V::Load(sums + r * kTileStride + p * 16);
      V::Store(out, V::Fma(sum, scale, first ? V::Zero() : V::Load(out)));
    }
  }
}

// Weights of fp8, group by group. kDecoded: from what DecodePanel made; else from the codes, some steps of
// which are decoded at a time. Both make the same sums of the same numbers.
template <class T, class V, int kRowTiles, int kPanels, bool kDecoded>
void ScaledTile(const TileArgs& args) {
  constexpr int64_t kAtATime = kFp8AtATime * kFp8StepLines;
  alignas(64) float sums[kRowTiles * kTileRows * kTileStride];
  const std::byte* a = static_cast<const std::byte*>(args.a);
  const std::byte* b = args.b;
  Fetcher<kPanels> fetcher{args.fetch, args.fetch_lines};
  int64_t group = args.first_lines;
  for (int64_t left = args.steps; left > 0; group = args.group_lines) {
    const std::byte* scales = b;
    const int64_t lines = group < left ? group : left;
    fetcher.Fetch(args, 1);
    b += 64;
    ZeroSums<T, kRowTiles, kPanels>();
    if constexpr (kDecoded) {
      for (int64_t line = 0; line < lines; line += kFp8StepLines) {
        fetcher.Fetch(args, kFp8StepLines < lines - line ? kFp8StepLines : lines - line);
        MultiplyStep<T, kRowTiles, kPanels>(a, b, args.panel_bytes);
        a += args.rows * kRowBytes;
        b += kTileBytes;
      }
    } else {
      alignas(64) std::byte steps[kPanels * kFp8AtATime * kTileBytes];
      for (int64_t line = 0; line < lines; line += kAtATime) {
        const int64_t count = kAtATime < lines - line ? kAtATime : lines - line;
        fetcher.Fetch(args, count);
        for (int p = 0; p < kPanels; ++p)
          DecodeSteps<V>(b + p * args.panel_bytes, count, steps + p * kFp8AtATime * kTileBytes);
        for (int64_t i = 0; i * kFp8StepLines < count; ++i) {
          MultiplyStep<T, kRowTiles, kPanels>(a, steps + i * kTileBytes, kFp8AtATime * kTileBytes);
          a += args.rows * kRowBytes;
        }
        b += count * 64;
      }
    }
    StoreSums<T, kRowTiles, kPanels>(sums);
    AddScaled<V, kPanels>(sums, args, scales, left == args.steps);
    left -= lines;
  }
}

// Columns [begin, end) of a row of k values of bf16, which may begin before it and end after it: zeros there.
inline void CopyColumns(const char* row, int64_t k, int64_t begin, int64_t end, char* to) {
  if (begin >= 0 && end <= k && end - begin == kRowBytes / 2) {
    __builtin_memcpy(to, row + begin * 2, kRowBytes);
    return;
  }
  __builtin_memset(to, 0, kRowBytes);
  for (int64_t column = begin < 0 ? 0 : begin; column < end && column < k; ++column)
    __builtin_memcpy(to + (column - begin) * 2, row + column * 2, 2);
}

// Rows of bf16 into [steps][rows] lines of 64 bytes, steps beginning anew with each group of an fp8 weight.
// Eight lines of each row at a time, so that rows 4 KiB apart do not fight for one set of the cache.
inline void PackTiles(const PackBlockArgs& args) {
  constexpr int64_t kStepColumns = 32, kStretch = 8 * kStepColumns;
  char* out = static_cast<char*>(args.out);
  const int64_t last = args.lead + args.k;
  int64_t group = args.first_lines > 0 ? args.first_lines * 4 : last;
  for (int64_t begin = 0; begin < last; group = args.group_lines * 4) {
    const int64_t end = begin + group < last ? begin + group : last;
    for (; begin < end; begin += kStretch) {
      const int64_t stretch = begin + kStretch < end ? kStretch : end - begin;
      for (int64_t r = 0; r < args.num_rows; ++r) {
        const char* row = static_cast<const char*>(args.rows[r]);
        for (int64_t at = 0; at < stretch; at += kStepColumns) {
          const int64_t column = begin + at,
                        column_end = column + kStepColumns < end ? column + kStepColumns : end;
          CopyColumns(row, args.k, column - args.lead, column_end - args.lead,
                      out + (at / kStepColumns * args.num_rows + r) * kRowBytes);
        }
      }
      out += (stretch + kStepColumns - 1) / kStepColumns * args.num_rows * kRowBytes;
    }
    begin = end;
  }
}

template <class T>
constexpr WeightKernels AmxKernelsBase() {
  WeightKernels kernels;
  kernels.max_rows = kMaxAmxRows;
  kernels.k_per_step = 32;
  kernels.a_step_bytes = kRowBytes;
  kernels.pack_block = &PackTiles;
  kernels.configure = &ConfigureTiles<T>;
  kernels.release = &T::Release;
  // Half of the 2 MiB of L2 that CPUs with AMX have; more rows pass while a panel is near, as products are
  // cheap beside reading it.
  kernels.segment_bytes = 1 << 20;
  kernels.max_segment_rows = 256;
  return kernels;
}

template <class T>
constexpr WeightKernels MakeAmxBf16Kernels() {
  WeightKernels kernels = AmxKernelsBase<T>();
  for (int rows = 1; rows <= kMaxAmxRows; ++rows) {
    TileFn(&tile)[3] = kernels.tile[rows - 1];
    tile[0] = rows <= kTileRows ? &PairsTile<T, 1, 1> : &PairsTile<T, 2, 1>;
    tile[1] = rows <= kTileRows ? &PairsTile<T, 1, 2> : &PairsTile<T, 2, 2>;
    tile[2] = rows <= kTileRows ? &PairsTile<T, 1, 4> : nullptr;
  }
  kernels.step_lines = kTileLines;
  kernels.line_ns = 0.6f;
  return kernels;
}

template <class T, class V, bool kDecoded>
constexpr void FillScaledTiles(TileFn (&tiles)[kMaxTileRows][3]) {
  for (int rows = 1; rows <= kMaxAmxRows; ++rows) {
    TileFn(&tile)[3] = tiles[rows - 1];
    tile[0] = rows <= kTileRows ? &ScaledTile<T, V, 1, 1, kDecoded> : &ScaledTile<T, V, 2, 1, kDecoded>;
    tile[1] = rows <= kTileRows ? &ScaledTile<T, V, 1, 2, kDecoded> : &ScaledTile<T, V, 2, 2, kDecoded>;
    tile[2] = rows <= kTileRows ? &ScaledTile<T, V, 1, 4, kDecoded> : nullptr;
  }
}

template <class T, class V>
constexpr WeightKernels MakeAmxFp8Kernels() {
  WeightKernels kernels = AmxKernelsBase<T>();
  FillScaledTiles<T, V, false>(kernels.tile);
  FillScaledTiles<T, V, true>(kernels.decoded_tile);
  kernels.step_lines = kFp8StepLines;
  kernels.line_ns = 0.6f;
  kernels.decode = &DecodePanel<V>;
  kernels.decoded_line_bytes = 128;
  return kernels;
}

}  // namespace
}  // namespace cadre::kernels
