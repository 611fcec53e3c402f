#pragma once
// Where a KV head's panels lie in a block: heads one after the other, K's panels of a head, then its V's.
#include <cstdint>

#include "kernels/attention.h"

namespace cadre::kernels {

struct KvHeadBytes {
  int64_t k, v;
};
inline KvHeadBytes HeadBytesOf(const KvLayerView& view) {
  const int64_t element = view.type == DType::kF32 ? 4 : 2;
  const int64_t v = view.latent ? 0 : element * view.block_size * view.v_dim;
  return {element * view.block_size * view.k_dim, (v + 63) / 64 * 64};
}

}  // namespace cadre::kernels
