#pragma once
// What an instruction set brings to attention. Plain declarations only, because files compiled for wide
// instruction sets see this header.
//
// A *block* is up to kAttentionRows query rows of one KV head of one sequence, in (position, head) order: the
// M side of small matrix products. A *span* is kAttentionSpan positions, aligned from position 0. A span's
// partial result of a row is (m, l, o): the largest logit, the sum of p = exp(logit - m), the sum of p * V.
// Partials are merged in rising order of spans,
//   m' = max(m, m2), a = exp(m - m'), b = exp(m2 - m'), l' = l * a + l2 * b, o' = o * a + o2 * b,
// by the same instructions whether a thread walks all spans or each span is another thread's, so that the
// split never shows in a bit.
#include <cstddef>
#include <cstdint>

namespace cadre::kernels {

constexpr int kAttentionRows = 64;
constexpr int kAttentionSpan = 256;

struct AttentionBlock {
  const std::byte* kv = nullptr;  ///< this KV head's K panels in cache block 0
  int64_t block_stride = 0;       ///< bytes
  int64_t v_offset = 0;           ///< bytes from K's panels to V's in a cache block; unused when latent
  int32_t block_panels = 1;       ///< 16-token panels in a cache block
  int32_t k_dim = 0, v_dim = 0;
  bool latent = false;
  const int32_t* block_table = nullptr;
  const void* q = nullptr;  ///< the sequence's first row, at the first head of this KV head
  int64_t q_stride = 0;
  void* out = nullptr;  ///< likewise
  int64_t out_stride = 0;
  int32_t group = 1;           ///< query heads of this KV head
  int32_t first_position = 0;  ///< of the sequence's first row
  int32_t row_begin = 0;  ///< block row i is query row (row_begin + i) / group, head (row_begin + i) % group
  int32_t num_rows = 0;   ///< <= kAttentionRows
  int32_t window = 0;
  float scale = 1.0f;
  const float* sinks = nullptr;  ///< at the first head of this KV head, or null
};

/// Partial results of a block's rows.
struct AttentionState {
  float* m = nullptr;  ///< [kAttentionRows]
  float* l = nullptr;  ///< [kAttentionRows]; 0: nothing yet
  float* o = nullptr;  ///< [kAttentionRows, RoundUp(v_dim, 16)], 64-byte aligned
};

/// Working memory of one thread, 64-byte aligned.
struct AttentionScratch {
  std::byte* q = nullptr;       ///< kAttentionRows * k_dim * 4 bytes
  std::byte* scores = nullptr;  ///< kAttentionRows * kScoreStride * 4 bytes
  std::byte* values = nullptr;  ///< V panels that are made here: kAttentionSpan * v_dim * 4 bytes
};
/// Floats between rows of scores; not a multiple of 1 KiB, which would map all rows to a few cache sets.
constexpr int kScoreStride = kAttentionSpan + 16;

struct AttentionOps {
  /// Adds spans [span_begin, span_end) to the state.
  void (*fold)(const AttentionBlock&, int64_t span_begin, int64_t span_end, const AttentionState&,
               const AttentionScratch&);
  /// Merges a later partial into the state.
  void (*merge)(const AttentionBlock&, const AttentionState& part, const AttentionState&);
  /// Sinks, division, rounding, and the rows to where they belong.
  void (*finish)(const AttentionBlock&, const AttentionState&);
  float macs_per_ns = 1;  ///< rough, for deciding on threads
};

struct AttentionKernels {
  AttentionOps bf16, f32;  ///< by the pool's type
};

namespace portable {
extern const AttentionKernels kAttentionKernels;
}
namespace avx2 {
extern const AttentionKernels kAttentionKernels;
}
namespace avx512 {
extern const AttentionKernels kAttentionKernels;
}
namespace avx512_bf16 {
extern const AttentionKernels kAttentionKernels;
}

}  // namespace cadre::kernels
