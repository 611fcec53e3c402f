#pragma once
// Attention of a block of rows over an instruction set's struct V and kind of product P (see
// attention_tiles.h).
//
// A span is done in two passes: all its scores, then each row's largest logit, weights and their sum, then
// the weighted sums of V. So nothing is rescaled inside a span, and both products are plain matrix steps.
//
// Which memory may be read: a row sees positions [begin, end). Scores of other positions are computed where
// that is simpler, and replaced before use, so that K may hold anything there. Their weights are zero, but
// zero times NaN is NaN: positions that no row of the block sees are zeroed in a copy of the panel, and where
// rows see different positions of a panel that holds a NaN or an infinity, the rows of each position are done
// by themselves.
#include "kernels/attention_tiles.h"

namespace cadre::kernels {
namespace {

// Positions of a span, relative to its begin.
struct Range {
  int begin = 0, end = 0;
  bool Empty() const { return begin >= end; }
};

inline __attribute__((always_inline)) int MinInt(int64_t a, int64_t b) {
  return static_cast<int>(a < b ? a : b);
}
inline __attribute__((always_inline)) int MaxInt(int64_t a, int64_t b) {
  return static_cast<int>(a > b ? a : b);
}

template <class V, class P>
struct AttentionRun {
  using F = typename V::F;
  static constexpr int kPanels = kAttentionSpan / 16;
  static constexpr int kElement = P::kBf16 ? 2 : 4;

  const AttentionBlock& block;
  const AttentionState& state;
  const AttentionScratch& scratch;
  int64_t o_stride, q_bytes;
  // Of the span in work:
  Range ranges[kAttentionRows];
  const std::byte* k_panels[kPanels];
  const std::byte* v_panels[kPanels];
  alignas(64) float span_m[kAttentionRows];
  alignas(64) float span_l[kAttentionRows];
  alignas(64) float a[kAttentionRows];
  alignas(64) float b[kAttentionRows];
  Fold fold[kAttentionRows];

  AttentionRun(const AttentionBlock& block_in, const AttentionState& state_in,
               const AttentionScratch& scratch_in)
      : block(block_in), state(state_in), scratch(scratch_in) {
    o_stride = (block.v_dim + 15) / 16 * 16;
    q_bytes = int64_t{block.k_dim} / P::kStep * P::kStepBytes;
  }

  void PackQ() {
    for (int i = 0; i < block.num_rows; ++i) {
      const int row = (block.row_begin + i) / block.group, head = (block.row_begin + i) % block.group;
      const auto* from = static_cast<const std::byte*>(block.q) +
                         (row * block.q_stride + int64_t{head} * block.k_dim) * kElement;
      P::PackQ(scratch.q + i * q_bytes, from, block.k_dim);
    }
  }

  Range Visible(int row, int64_t span) const {
    const int64_t position = block.first_position + (block.row_begin + row) / block.group,
                  base = span * kAttentionSpan;
    const int64_t low = block.window > 0 ? position - block.window + 1 : 0;
    const Range range = {MaxInt(low - base, 0), MinInt(position + 1 - base, kAttentionSpan)};
    return range.Empty() ? Range{} : range;
  }

  // --- V panels ---

  int64_t VPanelBytes() const { return int64_t{block.v_dim} * 16 * kElement; }
  std::byte* OwnPanel(int t) const { return scratch.values + t * VPanelBytes(); }

  static void Transpose(const std::byte* k_panel, int v_dim, std::byte* to) {
    if constexpr (P::kBf16) {
      V::TransposeBf16(reinterpret_cast<const uint16_t*>(k_panel), v_dim, reinterpret_cast<uint16_t*>(to));
    } else {
      const auto* k = reinterpret_cast<const float*>(k_panel);
      auto* v = reinterpret_cast<float*>(to);
      for (int c = 0; c < v_dim; ++c) {
        for (int token = 0; token < 16; ++token) v[int64_t{token} * v_dim + c] = k[c * 16 + token];
      }
    }
  }

  // Makes panel t safe to multiply: tokens outside [begin, end) of the panel become zero, in a copy.
  void ZeroOutside(int t, int begin, int end) {
    std::byte* own = OwnPanel(t);
    if (v_panels[t] != own) __builtin_memcpy(own, v_panels[t], static_cast<size_t>(VPanelBytes()));
    v_panels[t] = own;
    for (int token = 0; token < 16; ++token) {
      if (token >= begin && token < end) continue;
      if constexpr (P::kBf16) {
        auto* line = reinterpret_cast<uint16_t*>(own) + int64_t{token / 2} * block.v_dim * 2 + token % 2;
        for (int c = 0; c < block.v_dim; ++c) line[c * 2] = 0;
      } else {
        __builtin_memset(own + int64_t{token} * block.v_dim * 4, 0, static_cast<size_t>(block.v_dim) * 4);
      }
    }
  }

  bool AllFinite(int t) const {
    constexpr uint32_t kHigh = 0x7F800000,
                       kLow = 0x7F80;  // exponents of f32 or the upper bf16, of the lower bf16
    const auto* words = reinterpret_cast<const uint32_t*>(v_panels[t]);
    uint32_t bad = 0;
    for (int64_t i = 0; i < VPanelBytes() / 4; ++i) {
      bad |= static_cast<uint32_t>((words[i] & kHigh) == kHigh);
      if constexpr (P::kBf16) bad |= static_cast<uint32_t>((words[i] & kLow) == kLow);
    }
    return bad == 0;
  }

  // False where rows must be done one position at a time (see the head of this file).
  bool PrepareValues(const Range& seen, const Range& shared) {
    const int first = seen.begin / 16, last = (seen.end - 1) / 16;
    for (int t = first; t <= last; ++t) {
      if (block.latent) {
        Transpose(k_panels[t], block.v_dim, OwnPanel(t));
        v_panels[t] = OwnPanel(t);
      }
      const int begin = MaxInt(seen.begin - t * 16, 0), end = MinInt(seen.end - t * 16, 16);
      if (begin > 0 || end < 16) ZeroOutside(t, begin, end);
    }
    if (seen.begin == shared.begin && seen.end == shared.end) return true;
    for (int t = first; t <= last; ++t) {
      const bool all_rows = t * 16 >= shared.begin && t * 16 + 16 <= shared.end;
      if (!all_rows && !AllFinite(t)) return false;
    }
    return true;
  }

  // --- softmax of one row of scores, in place; zero weights on [panel_begin, panel_end) around it ---

  void SoftmaxRow(int row, int panel_begin, int panel_end) {
    std::byte* weights = scratch.scores + row * int64_t{kScoreStride} * 4;
    auto* s = reinterpret_cast<float*>(weights);
    const Range range = ranges[row];
    const int first = range.Empty() ? panel_end : range.begin / 16;
    const int behind = range.Empty() ? panel_end : (range.end + 15) / 16;
    const F scale = V::Set(block.scale);
    F top = V::Set(-__builtin_inff());
    for (int t = first; t < behind; ++t) {
      F x = V::Mul(V::Load(s + t * 16), scale);
      if (range.begin > t * 16 || range.end < t * 16 + 16) {
        x = V::Keep(x, range.begin - t * 16, range.end - t * 16, -__builtin_inff());
      }
      V::Store(s + t * 16, x);
      top = V::Max(top, x);
    }
    span_m[row] = range.Empty() ? 0.0f : V::ReduceMax(top);
    const F m = V::Set(span_m[row]);
    // Weights take at most the room of the scores they replace, so writing in rising order never runs ahead.
    F sum = V::Zero();
    for (int t = panel_begin; t < first; ++t) P::StoreWeights(weights + t * P::kWeightBytes, V::Zero());
    for (int t = first; t < behind; ++t) {
      const F p = Exp<V>(V::Sub(V::Load(s + t * 16), m));
      sum = V::Add(sum, P::StoreWeights(weights + t * P::kWeightBytes, p));
    }
    for (int t = behind; t < panel_end; ++t) P::StoreWeights(weights + t * P::kWeightBytes, V::Zero());
    span_l[row] = V::ReduceAdd(sum);
  }

  // --- folding ---

  // From (m, l) of the state and of the span: what becomes of o. Fills fold, a and b and updates m and l.
  void FoldScalars(int row_begin, int row_end, const float* m2, const float* l2) {
    for (int r = row_begin; r < row_end; ++r) {
      fold[r] = l2[r] == 0.0f ? Fold::kSkip : state.l[r] == 0.0f ? Fold::kFirst : Fold::kMerge;
      const float top = state.m[r] > m2[r] ? state.m[r] : m2[r];
      a[r] = fold[r] == Fold::kMerge ? state.m[r] - top : 0.0f;
      b[r] = fold[r] == Fold::kMerge ? m2[r] - top : 0.0f;
      if (fold[r] == Fold::kFirst) state.m[r] = m2[r];
      if (fold[r] == Fold::kMerge) state.m[r] = top;
    }
    for (int r = row_begin; r < row_end; r += 16) {
      const int n = MinInt(row_end - r, 16);
      const F ea = Exp<V>(V::LoadPart(a + r, n)), eb = Exp<V>(V::LoadPart(b + r, n));
      V::StorePart(a + r, ea, n);
      V::StorePart(b + r, eb, n);
    }
    for (int r = row_begin; r < row_end; ++r) {
      if (fold[r] == Fold::kFirst) state.l[r] = l2[r];
      if (fold[r] == Fold::kMerge) state.l[r] = state.l[r] * a[r] + l2[r] * b[r];
    }
  }

  // --- one span ---

  // Rows in groups of at most V::kMaxRows, as even as they come: calls body(first, rows).
  template <class Body>
  static void ForGroups(int row_begin, int row_end, Body body) {
    const int num_groups = (row_end - row_begin + V::kMaxRows - 1) / V::kMaxRows;
    for (int g = 0, row = row_begin; g < num_groups; ++g) {
      const int rows = (row_end - row + num_groups - g - 1) / (num_groups - g);
      body(row, rows);
      row += rows;
    }
  }

  // Vectors beside each row in the smallest of those groups, which takes the most.
  static int MostBlocks(int num_rows) {
    const int num_groups = (num_rows + V::kMaxRows - 1) / V::kMaxRows;
    return Tiles<V, P>::For(num_rows / num_groups).blocks;
  }

  // Panels [begin, end) that rows of a group see.
  Range GroupPanels(int first, int rows) const {
    Range panels = {kPanels, 0};
    for (int r = first; r < first + rows; ++r) {
      if (ranges[r].Empty()) continue;
      panels.begin = MinInt(panels.begin, ranges[r].begin / 16);
      panels.end = MaxInt(panels.end, (ranges[r].end + 15) / 16);
    }
    return panels;
  }

  void Scores(int row_begin, int row_end, int panel_begin, int panel_end) {
    auto* scores = reinterpret_cast<float*>(scratch.scores);
    const int64_t steps = block.k_dim / P::kStep;
    const int blocks = MostBlocks(row_end - row_begin);
    for (int t = panel_begin; t < panel_end; t += blocks) {
      const int num = MinInt(panel_end - t, blocks);
      ForGroups(row_begin, row_end, [&](int first, int rows) {
        const Range panels = GroupPanels(first, rows);
        if (panels.begin >= t + num || panels.end <= t) return;
        const auto& tiles = Tiles<V, P>::For(rows);
        const std::byte* q = scratch.q + first * q_bytes;
        int i = t;
        for (; i + tiles.blocks <= t + num; i += tiles.blocks) {
          tiles.score(q, q_bytes, k_panels + i, steps, scores + first * int64_t{kScoreStride} + i * 16);
        }
        for (; i < t + num; ++i) {
          tiles.score_one(q, q_bytes, k_panels + i, steps, scores + first * int64_t{kScoreStride} + i * 16);
        }
      });
    }
  }

  void Values(int row_begin, int row_end) {
    const int num_vectors = (block.v_dim + 15) / 16, last_lanes = block.v_dim - (num_vectors - 1) * 16;
    const int blocks = MostBlocks(row_end - row_begin);
    for (int c = 0; c < num_vectors; c += blocks) {
      const int end = MinInt(c + blocks, num_vectors);
      ForGroups(row_begin, row_end, [&](int first, int rows) {
        const Range panels = GroupPanels(first, rows);
        if (panels.Empty()) return;
        const auto& tiles = Tiles<V, P>::For(rows);
        ValueTileArgs args;
        args.weights =
            scratch.scores + first * int64_t{kScoreStride} * 4 + int64_t{panels.begin} * P::kWeightBytes;
        args.weights_bytes = kScoreStride * 4;
        args.panels = v_panels + panels.begin;
        args.num_panels = panels.end - panels.begin;
        args.line_bytes = int64_t{block.v_dim} * 4;
        args.last_lanes = last_lanes;
        args.fold = fold + first;
        args.a = a + first;
        args.b = b + first;
        args.o_stride = o_stride;
        for (int i = c; i < end;) {
          const bool part = i == num_vectors - 1 && last_lanes < 16;
          const int full = end - i - (end == num_vectors && last_lanes < 16 ? 1 : 0);
          args.column_bytes = int64_t{i} * 64;
          args.o = state.o + first * o_stride + i * 16;
          if (!part && full >= tiles.blocks) {
            tiles.value(args);
            i += tiles.blocks;
          } else {
            (part ? tiles.value_part : tiles.value_one)(args);
            ++i;
          }
        }
      });
    }
  }

  void FoldSpan(int64_t span, int row_begin, int row_end) {
    Range seen = {kAttentionSpan, 0}, shared = {0, kAttentionSpan};
    for (int r = row_begin; r < row_end; ++r) {
      ranges[r] = Visible(r, span);
      if (!ranges[r].Empty()) {
        seen.begin = MinInt(seen.begin, ranges[r].begin);
        seen.end = MaxInt(seen.end, ranges[r].end);
      }
      shared.begin = MaxInt(shared.begin, ranges[r].begin);
      shared.end = MinInt(shared.end, ranges[r].end);
    }
    if (seen.Empty()) return;
    const int panel_begin = seen.begin / 16, panel_end = (seen.end + 15) / 16;
    const int64_t k_bytes = int64_t{block.k_dim} * 16 * kElement;
    for (int t = panel_begin; t < panel_end; ++t) {
      const int64_t panel = span * kPanels + t, in_block = panel % block.block_panels;
      const std::byte* at = block.kv + block.block_table[panel / block.block_panels] * block.block_stride;
      k_panels[t] = at + in_block * k_bytes;
      v_panels[t] = at + block.v_offset + in_block * VPanelBytes();
    }
    if (!PrepareValues(seen, shared)) {
      for (int r = row_begin; r < row_end;) {
        const int position = (block.row_begin + r) / block.group;
        int end = r + 1;
        while (end < row_end && (block.row_begin + end) / block.group == position) ++end;
        FoldSpan(span, r, end);
        r = end;
      }
      return;
    }
    Scores(row_begin, row_end, panel_begin, panel_end);
    ForGroups(row_begin, row_end, [&](int first, int rows) {
      const Range panels = GroupPanels(first, rows);
      for (int r = first; r < first + rows; ++r) SoftmaxRow(r, panels.begin, panels.end);
    });
    FoldScalars(row_begin, row_end, span_m, span_l);
    Values(row_begin, row_end);
  }

  // --- the three entries of AttentionOps ---

  static void FoldSpans(const AttentionBlock& block, int64_t span_begin, int64_t span_end,
                        const AttentionState& state, const AttentionScratch& scratch) {
    AttentionRun run(block, state, scratch);
    run.PackQ();
    for (int64_t span = span_begin; span < span_end; ++span) run.FoldSpan(span, 0, block.num_rows);
  }

  static void Merge(const AttentionBlock& block, const AttentionState& part, const AttentionState& state) {
    AttentionRun run(block, state, {});
    run.FoldScalars(0, block.num_rows, part.m, part.l);
    for (int r = 0; r < block.num_rows; ++r) {
      if (run.fold[r] == Fold::kSkip) continue;
      const F fa = V::Set(run.a[r]), fb = V::Set(run.b[r]);
      const float* from = part.o + r * run.o_stride;
      float* to = state.o + r * run.o_stride;
      for (int64_t c = 0; c < run.o_stride; c += 16) {
        const F sum = V::Load(from + c);
        V::Store(to + c, run.fold[r] == Fold::kFirst ? sum : V::Fma(V::Load(to + c), fa, V::Mul(sum, fb)));
      }
    }
  }

  static void Finish(const AttentionBlock& block, const AttentionState& state) {
    const int64_t o_stride = (block.v_dim + 15) / 16 * 16;
    for (int i = 0; i < block.num_rows; ++i) {
      const int row = (block.row_begin + i) / block.group, head = (block.row_begin + i) % block.group;
      F factor = V::Div(V::Set(1.0f), V::Set(state.l[i]));
      if (block.sinks != nullptr) {
        const F m = V::Set(state.m[i]), sink = V::Set(block.sinks[head]), top = V::Max(m, sink);
        const F share = Exp<V>(V::Sub(m, top));
        factor = V::Div(share, V::Fma(V::Set(state.l[i]), share, Exp<V>(V::Sub(sink, top))));
      }
      const float* o = state.o + i * o_stride;
      auto* out = static_cast<std::byte*>(block.out) +
                  (row * block.out_stride + int64_t{head} * block.v_dim) * kElement;
      for (int c = 0; c < block.v_dim; c += 16) {
        const F y = V::Mul(V::Load(o + c), factor);
        const int lanes = MinInt(block.v_dim - c, 16);
        if constexpr (P::kBf16) {
          auto* to = reinterpret_cast<uint16_t*>(out) + c;
          lanes == 16 ? V::StoreBf16(to, y) : V::StoreBf16Part(to, y, lanes);
        } else {
          auto* to = reinterpret_cast<float*>(out) + c;
          lanes == 16 ? V::Store(to, y) : V::StorePart(to, y, lanes);
        }
      }
    }
  }

  static constexpr AttentionOps Ops(float macs_per_ns) { return {FoldSpans, Merge, Finish, macs_per_ns}; }
};

}  // namespace
}  // namespace cadre::kernels
