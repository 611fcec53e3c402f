#pragma once
// As avx512/simd.h, with the processor's own rounding to bf16. It flushes subnormals to zero.
#include "kernels/avx512/simd.h"

namespace cadre::kernels::avx512_bf16 {
namespace {

struct Simd : avx512::Simd {
  CADRE_INLINE __m256i Bf16Bits(F a) {
    const __m256bh bits = _mm512_cvtneps_pbh(a);
    __m256i out;
    __builtin_memcpy(&out, &bits, sizeof(out));
    return out;
  }
  CADRE_INLINE F RoundBf16(F a) { return Widen(Bf16Bits(a)); }
  CADRE_INLINE F StoreBf16(uint16_t* p, F a) {
    const __m256i bits = Bf16Bits(a);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), bits);
    return Widen(bits);
  }
  CADRE_INLINE F StoreBf16Part(uint16_t* p, F a, int n) {
    const __m256i bits = Bf16Bits(a);
    _mm256_mask_storeu_epi16(p, First(n), bits);
    return Widen(bits);
  }
};

}  // namespace
}  // namespace cadre::kernels::avx512_bf16
