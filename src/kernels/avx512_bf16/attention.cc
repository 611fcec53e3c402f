#include "kernels/attention_templates.h"
#include "kernels/avx512_bf16/simd.h"

namespace cadre::kernels::avx512_bf16 {
namespace {

// Pairs of bf16 multiplied and added to f32 in one instruction (which flushes subnormals to zero).
struct DotProduct {
  using F = __m512;
  using Line = __m512i;
  using Scalar = __m512i;
  static constexpr bool kBf16 = true;
  static constexpr bool kWide = false;
  static constexpr int kStep = 2;
  static constexpr int kStepBytes = 4;
  static constexpr int kWeightBytes = 32;
  CADRE_INLINE Line LoadLine(const std::byte* p) { return _mm512_loadu_si512(p); }
  CADRE_INLINE Line LoadLinePart(const std::byte* p, int n) { return Simd::LoadRawPart(p, n); }
  CADRE_INLINE Scalar Broadcast(const std::byte* p) {
    int32_t pair;
    __builtin_memcpy(&pair, p, sizeof(pair));
    return _mm512_set1_epi32(pair);
  }
  CADRE_INLINE F Multiply(Scalar a, Line b, F c) {
    return _mm512_dpbf16_ps(c, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
  }
  CADRE_INLINE F StoreWeights(std::byte* p, F w) {
    return Simd::StoreBf16(reinterpret_cast<uint16_t*>(p), w);
  }
  CADRE_INLINE void PackQ(std::byte* to, const void* row, int k_dim) {
    __builtin_memcpy(to, row, static_cast<size_t>(k_dim) * 2);
  }
};

}  // namespace

const AttentionKernels kAttentionKernels = {AttentionRun<Simd, DotProduct>::Ops(80.0f),
                                            AttentionRun<Simd, F32Product<Simd>>::Ops(40.0f)};

}  // namespace cadre::kernels::avx512_bf16
