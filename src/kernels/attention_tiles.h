#pragma once
// Register blocks of attention: scores (Q times 16-token panels of K) and weighted sums (P times panels of
// V), over an instruction set's struct V (see portable/simd.h) and the kind of product:
//   F32Product    f32 pools
//   WideProduct   bf16 pools where bf16 is widened: Q and P are kept as f32 with bf16's values
//   (DotProduct   bf16 pools with the bf16 dot product; stands in that instruction set's file)
// Each output is one chain of sums, in rising k or token, whatever the block's shape.
#include <cstddef>
#include <cstdint>

#include "kernels/attention_kernels.h"
#include "kernels/math_templates.h"
#include "kernels/simd_inline.h"

namespace cadre::kernels {
namespace {

template <class V>
struct F32Product {
  using F = typename V::F;
  using Line = F;
  using Scalar = F;
  static constexpr bool kBf16 = false;
  static constexpr bool kWide = false;     // a line fills two vectors
  static constexpr int kStep = 1;          // k or tokens that a line holds
  static constexpr int kStepBytes = 4;     // of one row of Q or P
  static constexpr int kWeightBytes = 64;  // of 16 tokens of one row of P
  CADRE_INLINE Line LoadLine(const std::byte* p) { return V::Load(reinterpret_cast<const float*>(p)); }
  CADRE_INLINE Line LoadLinePart(const std::byte* p, int n) {
    return V::LoadPart(reinterpret_cast<const float*>(p), n);
  }
  CADRE_INLINE Scalar Broadcast(const std::byte* p) { return V::Set(*reinterpret_cast<const float*>(p)); }
  CADRE_INLINE F Multiply(const Scalar& a, const Line& b, const F& c) { return V::Fma(a, b, c); }
  /// Stores sixteen weights for Multiply; returns the values as it will see them.
  CADRE_INLINE F StoreWeights(std::byte* p, const F& w) {
    V::Store(reinterpret_cast<float*>(p), w);
    return w;
  }
  CADRE_INLINE void PackQ(std::byte* to, const void* row, int k_dim) {
    __builtin_memcpy(to, row, static_cast<size_t>(k_dim) * 4);
  }
};

template <class V>
struct WideProduct {
  using F = typename V::F;
  struct Line {
    F low, high;
  };
  using Scalar = Line;
  static constexpr bool kBf16 = true;
  static constexpr bool kWide = true;
  static constexpr int kStep = 2;
  static constexpr int kStepBytes = 8;
  static constexpr int kWeightBytes = 64;
  CADRE_INLINE Line LoadLine(const std::byte* p) {
    const typename V::U raw = V::LoadRaw(p);
    return {V::Low(raw), V::High(raw)};
  }
  CADRE_INLINE Line LoadLinePart(const std::byte* p, int n) {
    const typename V::U raw = V::LoadRawPart(p, n);
    return {V::Low(raw), V::High(raw)};
  }
  CADRE_INLINE Scalar Broadcast(const std::byte* p) {
    const float* f = reinterpret_cast<const float*>(p);
    return {V::Set(f[0]), V::Set(f[1])};
  }
  CADRE_INLINE F Multiply(const Scalar& a, const Line& b, const F& c) {
    return V::Fma(a.high, b.high, V::Fma(a.low, b.low, c));
  }
  CADRE_INLINE F StoreWeights(std::byte* p, const F& w) {
    const F rounded = V::RoundBf16(w);
    V::Store(reinterpret_cast<float*>(p), rounded);
    return rounded;
  }
  CADRE_INLINE void PackQ(std::byte* to, const void* row, int k_dim) {
    const auto* from = static_cast<const uint16_t*>(row);
    auto* f = reinterpret_cast<float*>(to);
    int k = 0;
    for (; k + 16 <= k_dim; k += 16) V::Store(f + k, V::LoadBf16(from + k));
    if (k < k_dim) V::StorePart(f + k, V::LoadBf16Part(from + k, k_dim - k), k_dim - k);
  }
};

/// scores[r][16 n ...] = Q row r times K panel n, for kRows rows and kBlocks panels.
template <class V, class P, int kRows, int kBlocks>
void ScoreTile(const std::byte* q, int64_t q_bytes, const std::byte* const* panels, int64_t steps,
               float* scores) {
  typename V::F acc[kRows][kBlocks];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int n = 0; n < kBlocks; ++n) acc[r][n] = V::Zero();
  }
  const std::byte* panel[kBlocks];
  for (int n = 0; n < kBlocks; ++n) panel[n] = panels[n];
#pragma GCC unroll 1
  for (int64_t i = 0; i < steps; ++i) {
    typename P::Line line[kBlocks];
#pragma GCC unroll 8
    for (int n = 0; n < kBlocks; ++n) line[n] = P::LoadLine(panel[n] + i * 64);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const typename P::Scalar a = P::Broadcast(q + r * q_bytes + i * P::kStepBytes);
#pragma GCC unroll 8
      for (int n = 0; n < kBlocks; ++n) acc[r][n] = P::Multiply(a, line[n], acc[r][n]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int n = 0; n < kBlocks; ++n) V::Store(scores + r * int64_t{kScoreStride} + 16 * n, acc[r][n]);
  }
}

/// What to do with a row's new sums: o = o2, or o = o * a + o2 * b, or nothing.
enum class Fold : uint8_t { kSkip, kFirst, kMerge };

struct ValueTileArgs {
  const std::byte* weights = nullptr;        // first row and panel of P
  int64_t weights_bytes = 0;                 // between rows
  const std::byte* const* panels = nullptr;  // V panels
  int num_panels = 0;
  int64_t line_bytes = 0;  // between the lines of a panel: v_dim * 4
  int64_t column_bytes = 0;
  int last_lanes = 16;  // of the last vector
  const Fold* fold = nullptr;
  const float* a = nullptr;  // [rows]
  const float* b = nullptr;
  float* o = nullptr;
  int64_t o_stride = 0;
};

/// Sums kBlocks vectors of columns for kRows rows over all panels and folds them into o.
template <class V, class P, int kRows, int kBlocks, bool kPart>
void ValueTile(const ValueTileArgs& args) {
  using F = typename V::F;
  constexpr int kLines = 16 / P::kStep;
  F acc[kRows][kBlocks];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int n = 0; n < kBlocks; ++n) acc[r][n] = V::Zero();
  }
  const std::byte* w = args.weights;
  const int64_t w_bytes = args.weights_bytes, line_bytes = args.line_bytes;
#pragma GCC unroll 1
  for (int t = 0; t < args.num_panels; ++t) {
    const std::byte* v = args.panels[t] + args.column_bytes;
#pragma GCC unroll 1
    for (int i = 0; i < kLines; ++i, v += line_bytes, w += P::kStepBytes) {
      typename P::Line line[kBlocks];
#pragma GCC unroll 8
      for (int n = 0; n < kBlocks; ++n) {
        line[n] = kPart && n == kBlocks - 1 ? P::LoadLinePart(v + n * 64, args.last_lanes)
                                            : P::LoadLine(v + n * 64);
      }
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const typename P::Scalar a = P::Broadcast(w + r * w_bytes);
#pragma GCC unroll 8
        for (int n = 0; n < kBlocks; ++n) acc[r][n] = P::Multiply(a, line[n], acc[r][n]);
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    const Fold fold = args.fold[r];
    if (fold == Fold::kSkip) continue;
    const F a = V::Set(args.a[r]), b = V::Set(args.b[r]);
    float* o = args.o + r * args.o_stride;
#pragma GCC unroll 8
    for (int n = 0; n < kBlocks; ++n, o += 16) {
      // + 0 makes -0 to +0: a masked token beside the row's own adds +-0 to the chain, and must leave no
      // trace.
      const F sum = V::Add(acc[r][n], V::Zero());
      V::Store(o, fold == Fold::kFirst ? sum : V::Fma(V::Load(o), a, V::Mul(sum, b)));
    }
  }
}

/// The tiles for 1 .. V::kMaxRows rows.
template <class V, class P>
struct Tiles {
  using ScoreFn = void (*)(const std::byte*, int64_t, const std::byte* const*, int64_t, float*);
  using ValueFn = void (*)(const ValueTileArgs&);
  struct Entry {
    int blocks;
    ScoreFn score, score_one;
    ValueFn value, value_one, value_part;
  };
  template <int kRows>
  static constexpr Entry Make() {
    constexpr int kBlocks = V::Blocks(kRows, P::kWide);
    return {kBlocks,
            ScoreTile<V, P, kRows, kBlocks>,
            ScoreTile<V, P, kRows, 1>,
            ValueTile<V, P, kRows, kBlocks, false>,
            ValueTile<V, P, kRows, 1, false>,
            ValueTile<V, P, kRows, 1, true>};
  }
  template <int... kRows>
  struct Table {
    static constexpr Entry kEntries[] = {Make<kRows>()...};
  };
  static constexpr const Entry& For(int rows) {
    if constexpr (V::kMaxRows == 8) {
      return Table<1, 2, 3, 4, 5, 6, 7, 8>::kEntries[rows - 1];
    } else if constexpr (V::kMaxRows == 4) {
      return Table<1, 2, 3, 4>::kEntries[rows - 1];
    } else {
      static_assert(V::kMaxRows == 2);
      return Table<1, 2>::kEntries[rows - 1];
    }
  }
};

}  // namespace
}  // namespace cadre::kernels
