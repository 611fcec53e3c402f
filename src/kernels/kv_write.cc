#include <algorithm>

#include "base/check.h"
#include "kernels/kv_layout.h"
#include "kernels/row_threads.h"

namespace cadre::kernels {
namespace {

// Tokens [begin, end) of one head.
void WriteHead(const KvWriteArgs& args, const RowKernels& rows, int head, int64_t begin, int64_t end) {
  const KvLayerView& kv = args.kv;
  const KvHeadBytes bytes = HeadBytesOf(kv);
  const bool f32 = kv.type == DType::kF32;
  constexpr int kChunk = 512;
  alignas(64) uint16_t bits[kChunk];
  for (int64_t t = begin; t < end; ++t) {
    const int64_t offset = args.slots[t] % kv.block_size, panel = offset / 16, token = offset % 16;
    std::byte* at = kv.base + args.slots[t] / kv.block_size * kv.block_stride + head * (bytes.k + bytes.v);
    const float* k = args.k + t * args.k_stride + int64_t{head} * kv.k_dim;
    const float* v = kv.latent ? nullptr : args.v + t * args.v_stride + int64_t{head} * kv.v_dim;
    std::byte* v_at = at + bytes.k;
    if (f32) {
      float* to = reinterpret_cast<float*>(at) + panel * 16 * kv.k_dim + token;
      for (int64_t c = 0; c < kv.k_dim; ++c) to[c * 16] = k[c];
      if (v != nullptr) std::copy_n(v, kv.v_dim, reinterpret_cast<float*>(v_at) + offset * kv.v_dim);
      continue;
    }
    for (int64_t c = 0; c < kv.k_dim; c += kChunk) {
      const int64_t n = std::min<int64_t>(kChunk, kv.k_dim - c);
      rows.to_bf16(k + c, n, bits);
      uint16_t* to = reinterpret_cast<uint16_t*>(at) + (panel * kv.k_dim + c) * 16 + token * 2;
      for (int64_t i = 0; i < n; i += 2, to += 32) {
        to[0] = bits[i];
        to[1] = bits[i + 1];
      }
    }
    if (v == nullptr) continue;
    for (int64_t c = 0; c < kv.v_dim; c += kChunk) {
      const int64_t n = std::min<int64_t>(kChunk, kv.v_dim - c);
      rows.to_bf16(v + c, n, bits);
      uint16_t* to = reinterpret_cast<uint16_t*>(v_at) + (offset / 2 * kv.v_dim + c) * 2 + token % 2;
      for (int64_t i = 0; i < n; ++i) to[2 * i] = bits[i];
    }
  }
}

}  // namespace

int64_t KvBlockBytes(const KvLayerView& view) {
  const KvHeadBytes bytes = HeadBytesOf(view);
  return view.num_kv_heads * (bytes.k + bytes.v);
}

void WriteKv(const Device& device, const KvWriteArgs& args) {
  const KvLayerView& kv = args.kv;
  CADRE_CHECK(kv.k_dim % 2 == 0 && kv.block_size % 16 == 0 && (kv.latent || args.v != nullptr));
  CADRE_CHECK(kv.block_stride >= KvBlockBytes(kv));
  const RowKernels& rows = RowKernelsFor(device.isa);
  constexpr int64_t kTokens = 16;
  constexpr double kInlineNs = 20'000;  // below, waking the other threads costs more than it saves
  const int64_t chunks = (args.num_tokens + kTokens - 1) / kTokens;
  const auto task = [&](int64_t i, int) {
    const int64_t begin = i / kv.num_kv_heads * kTokens;
    WriteHead(args, rows, static_cast<int>(i % kv.num_kv_heads), begin,
              std::min(begin + kTokens, args.num_tokens));
  };
  // About 2 ns a column: each goes to a cache line of its own.
  const double ns = 2.0 * static_cast<double>(args.num_tokens * kv.num_kv_heads) * (kv.k_dim + kv.v_dim);
  if (device.pool == nullptr || ns < kInlineNs) {
    for (int64_t i = 0; i < chunks * kv.num_kv_heads; ++i) task(i, 0);
  } else {
    device.pool->ForEach(chunks * kv.num_kv_heads, task);
  }
}

}  // namespace cadre::kernels
