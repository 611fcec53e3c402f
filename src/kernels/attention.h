#pragma once
// Attention over the paged KV cache, and the writes into it.
//
// A KV block of one layer holds, for each KV head, 16-token panels (block_size is a multiple of 16):
//   K  [block_size/16][panel]  bf16: [head_dim/2][16 tokens][2]    f32: [head_dim][16 tokens]
//   V  [block_size/16][panel]  bf16: [16/2 token pairs][v_dim][2]  f32: [16 tokens][v_dim]
// so that scores and weighted sums are the same matrix steps as everywhere else (16 outputs a line).
// MLA keeps one latent row a token (kv_lora_rank, then the rotary part) in K's panels only; values are its
// first v_dim columns.
//
// Heads lie one after the other in a block, K's panels of a head before its V's; a head's V is padded to 64
// bytes.
//
// The arithmetic of a query row is fixed by its position alone. Positions are cut into spans of 256, aligned
// from position 0. In a span: scores in f32, one chain of sums in rising k each (pairs of k for bf16); the
// largest; weights exp(score - largest) in f32, which bf16 pools round to bf16, and their sum as rounded; the
// weighted sum of V, one chain in rising position. Spans are merged in rising order (online softmax), then
// sinks, division, one rounding. Neither the other rows nor the number of threads, the blocks or their table
// can change a bit. Instruction sets differ in the last bits (fused or not, the bf16 dot product flushes
// subnormals), so they are part of the arithmetic's name.
//
// A position that a row may not see (behind the end, after it, before its window) cannot reach its result,
// whatever bytes lie there: NaN and infinity included.
#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/device.h"
#include "tensor/dtype.h"

namespace cadre::kernels {

/// The KV pool of one layer on one rank.
struct KvLayerView {
  std::byte* base = nullptr;  ///< block b starts at base + b * block_stride; 64-byte aligned
  int64_t block_stride = 0;   ///< bytes
  int32_t block_size = 16;    ///< tokens, a multiple of 16
  int32_t num_kv_heads = 0;   ///< on this rank; 1 for MLA
  int32_t k_dim = 0;          ///< head_dim; MLA: kv_lora_rank + rotary dim. Even.
  int32_t v_dim = 0;          ///< MLA: kv_lora_rank
  bool latent = false;        ///< MLA: values are the first v_dim columns of K, no V panels
  DType type = DType::kBf16;  ///< kBf16 or kF32
};

/// Bytes of one block of one layer: what block_stride must at least be. A multiple of 64.
int64_t KvBlockBytes(const KvLayerView& view);

struct KvWriteArgs {
  KvLayerView kv;
  int64_t num_tokens = 0;
  const float* k = nullptr;  ///< [num_tokens, num_kv_heads, k_dim], after norm and rotation
  int64_t k_stride = 0;      ///< elements between tokens
  const float* v = nullptr;  ///< [num_tokens, num_kv_heads, v_dim]; null for MLA
  int64_t v_stride = 0;
  const int64_t* slots = nullptr;  ///< [num_tokens] block * block_size + offset
};
/// Rounds to the pool's type and stores.
void WriteKv(const Device& device, const KvWriteArgs& args);

/// One sequence's rows of this step. The row with index i stands at position kv_len - q_len + i.
struct AttentionSequence {
  int32_t q_begin = 0;  ///< first row in q and out
  int32_t q_len = 0;
  int32_t kv_len = 0;                    ///< tokens in the cache, these rows included
  const int32_t* block_table = nullptr;  ///< [ceil(kv_len / block_size)] block ids
};

struct AttentionArgs {
  KvLayerView kv;
  int32_t num_heads = 0;    ///< query heads on this rank; head h reads KV head h / (num_heads / num_kv_heads)
  const void* q = nullptr;  ///< [T, num_heads, k_dim] of kv.type
  int64_t q_stride = 0;     ///< elements between rows
  float scale = 1.0f;
  int32_t window = 0;  ///< sliding window: a row sees the last `window` positions, itself included; 0: all
  const float* sinks = nullptr;  ///< [num_heads] extra logit in the softmax's denominator, or null
  std::span<const AttentionSequence> sequences;
  void* out = nullptr;  ///< [T, num_heads, v_dim] of kv.type
  int64_t out_stride = 0;
};
/// Causal attention; runs on all threads of the device, on the caller alone where the work is below about 20
/// us. Scratch is kept per thread inside: 0.3 MiB for head_dim 128, 0.9 MiB for MLA's 576, and up to 8 MiB of
/// partial results on the caller. Needs kv_len >= q_len >= 0 of every sequence.
void Attention(const Device& device, const AttentionArgs& args);

}  // namespace cadre::kernels
