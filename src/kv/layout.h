#pragma once
// How many bytes the KV cache takes and where each layer's blocks lie. One table gives both, so that the
// memory plan, the pool and the hand-off cannot disagree.
//
//   pool   [layer][block][block_bytes]       block_bytes as kernels/attention.h draws a block
//   notes  [block][token][note_bytes]        behind it: what is kept of each token beside keys and values
#include <cstdint>

#include "tensor/dtype.h"

namespace cadre::kv {

struct Layout {
  int32_t num_layers = 0;
  int32_t num_kv_heads = 0;  ///< on this rank; 1 for MLA
  int32_t k_dim = 0;         ///< head_dim; MLA: kv_lora_rank + rotary dim
  int32_t v_dim = 0;         ///< head_dim; MLA: kv_lora_rank, stored within K
  bool latent = false;       ///< MLA: one latent row serves as key and value
  int32_t block_size = 16;   ///< tokens a block, a multiple of 16
  DType type = DType::kBf16;
  int64_t note_bytes = 0;  ///< of a token: the experts it had, where answers tell them; not split by heads

  /// Bytes of one block of one layer: for each head its K panels, then its V panels, both in whole cache
  /// lines.
  int64_t BlockBytes() const {
    const auto lines = [&](int64_t dim) { return (dim * block_size * DTypeBytes(type) + 63) / 64 * 64; };
    return num_kv_heads * (lines(k_dim) + (latent ? 0 : lines(v_dim)));
  }
  /// Bytes of one block over all layers: the price of block_size tokens of context.
  int64_t BytesPerBlock() const { return BlockBytes() * num_layers; }
  int64_t BytesPerToken() const { return BytesPerBlock() / block_size; }
  int64_t PoolBytes(int64_t num_blocks) const { return BytesPerBlock() * num_blocks; }
  int64_t LayerOffset(int32_t layer, int64_t num_blocks) const { return layer * BlockBytes() * num_blocks; }
  int64_t NotesBytes(int64_t num_blocks) const { return note_bytes * block_size * num_blocks; }
  /// Pool and notes, which are one piece of memory.
  int64_t AllBytes(int64_t num_blocks) const { return PoolBytes(num_blocks) + NotesBytes(num_blocks); }
};

/// Blocks that hold `num_tokens`.
constexpr int64_t BlocksFor(int64_t num_tokens, int64_t block_size) {
  return (num_tokens + block_size - 1) / block_size;
}

}  // namespace cadre::kv
