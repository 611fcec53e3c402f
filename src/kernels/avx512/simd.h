#pragma once
// Sixteen floats in one register; portable/simd.h says what each function means.
// g++ 12's own header reads registers whose content does not matter (_mm512_undefined_ps), and warns of it.
#pragma GCC diagnostic push
#ifndef __clang__  // which has no such warning
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop

#include <cstdint>

#include "kernels/simd_inline.h"

namespace cadre::kernels::avx512 {
namespace {

struct Simd {
  using F = __m512;
  using U = __m512i;

  static constexpr int kMaxRows = 8;
  // Of 32 registers: rows * blocks sums, blocks lines (two registers each when wide), one or two scalars.
  static constexpr int Blocks(int rows, bool wide) { return rows <= 2 ? (wide ? 4 : 8) : rows <= 4 ? 4 : 2; }

  CADRE_INLINE __mmask16 First(int n) { return static_cast<__mmask16>((1u << n) - 1); }

  CADRE_INLINE F Set(float x) { return _mm512_set1_ps(x); }
  CADRE_INLINE F Zero() { return _mm512_setzero_ps(); }
  CADRE_INLINE F Load(const float* p) { return _mm512_loadu_ps(p); }
  CADRE_INLINE void Store(float* p, F a) { _mm512_storeu_ps(p, a); }
  CADRE_INLINE F LoadPart(const float* p, int n) { return _mm512_maskz_loadu_ps(First(n), p); }
  CADRE_INLINE void StorePart(float* p, F a, int n) { _mm512_mask_storeu_ps(p, First(n), a); }
  CADRE_INLINE F Add(F a, F b) { return _mm512_add_ps(a, b); }
  CADRE_INLINE F Sub(F a, F b) { return _mm512_sub_ps(a, b); }
  CADRE_INLINE F Mul(F a, F b) { return _mm512_mul_ps(a, b); }
  CADRE_INLINE F Div(F a, F b) { return _mm512_div_ps(a, b); }
  CADRE_INLINE F Fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  CADRE_INLINE F Max(F a, F b) { return _mm512_max_ps(a, b); }
  CADRE_INLINE F Min(F a, F b) { return _mm512_min_ps(a, b); }
  CADRE_INLINE F IfLess(F a, F b, F yes, F no) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), no, yes);
  }
  CADRE_INLINE F Keep(F a, int begin, int end, float fill) {
    const uint32_t low = begin <= 0 ? 0u : begin >= 16 ? 0xFFFFu : (1u << begin) - 1;
    const uint32_t high = end <= 0 ? 0u : end >= 16 ? 0xFFFFu : (1u << end) - 1;
    return _mm512_mask_blend_ps(static_cast<__mmask16>(high & ~low), Set(fill), a);
  }
  CADRE_INLINE F Round(F a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  CADRE_INLINE F Pow2(F n) {
    const __m512i exponent = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
    return _mm512_castsi512_ps(_mm512_slli_epi32(exponent, 23));
  }
  CADRE_INLINE float ReduceAdd(F a) {
    const __m256 s = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    const __m128 t = _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
    const __m128 u = _mm_add_ps(t, _mm_movehl_ps(t, t));
    return _mm_cvtss_f32(_mm_add_ss(u, _mm_movehdup_ps(u)));
  }
  CADRE_INLINE float ReduceMax(F a) {
    const __m256 s = _mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    const __m128 t = _mm_max_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
    const __m128 u = _mm_max_ps(t, _mm_movehl_ps(t, t));
    return _mm_cvtss_f32(_mm_max_ss(u, _mm_movehdup_ps(u)));
  }
  // In assembler because g++ 12 may spill a mask as 16 bits and read it back as 32, the upper ones being
  // garbage.
  CADRE_INLINE uint32_t EqualMask(F a, F b) {
    uint32_t bits;
    asm("kmovw %1, %0" : "=r"(bits) : "k"(_mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ)));
    return bits;
  }

  CADRE_INLINE U LoadRaw(const void* p) { return _mm512_loadu_si512(p); }
  CADRE_INLINE U LoadRawPart(const void* p, int n) { return _mm512_maskz_loadu_epi32(First(n), p); }
  CADRE_INLINE F Low(U a) { return _mm512_castsi512_ps(_mm512_slli_epi32(a, 16)); }
  CADRE_INLINE F High(U a) {
    return _mm512_castsi512_ps(_mm512_and_si512(a, _mm512_set1_epi32(static_cast<int>(0xFFFF0000))));
  }

  CADRE_INLINE F Widen(__m256i bits) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
  }
  CADRE_INLINE F LoadBf16(const uint16_t* p) {
    return Widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  CADRE_INLINE F LoadBf16Part(const uint16_t* p, int n) {
    return Widen(_mm256_maskz_loadu_epi16(First(n), p));
  }
  // The rounded value in the upper halves of the lanes.
  CADRE_INLINE U RoundBits(F a) {
    const __m512i bits = _mm512_castps_si512(a),
                  odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i sum = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7FFF)), odd);
    const __mmask16 nan = _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q);
    return _mm512_mask_or_epi32(sum, nan, bits, _mm512_set1_epi32(0x400000));
  }
  CADRE_INLINE F RoundBf16(F a) { return High(RoundBits(a)); }
  CADRE_INLINE F StoreBf16(uint16_t* p, F a) {
    const __m512i bits = RoundBits(a);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(_mm512_srli_epi32(bits, 16)));
    return High(bits);
  }
  CADRE_INLINE F StoreBf16Part(uint16_t* p, F a, int n) {
    const __m512i bits = RoundBits(a);
    _mm256_mask_storeu_epi16(p, First(n), _mm512_cvtepi32_epi16(_mm512_srli_epi32(bits, 16)));
    return High(bits);
  }

  CADRE_INLINE void TransposeBf16(const uint16_t* k, int v_dim, uint16_t* v) {
    // 16 columns at a time are 8 lines of 8 token pairs, 64 bits each (column 0 and 1 of a token, then of the
    // next): order the 16-bit values inside, then transpose 8 x 8.
    const __m512i swap = _mm512_set_epi8(15, 14, 11, 10, 13, 12, 9, 8, 7, 6, 3, 2, 5, 4, 1, 0,  //
                                         15, 14, 11, 10, 13, 12, 9, 8, 7, 6, 3, 2, 5, 4, 1, 0,  //
                                         15, 14, 11, 10, 13, 12, 9, 8, 7, 6, 3, 2, 5, 4, 1, 0,  //
                                         15, 14, 11, 10, 13, 12, 9, 8, 7, 6, 3, 2, 5, 4, 1, 0);
    int c = 0;
    for (; c + 16 <= v_dim; c += 16) {
      __m512i r[8], t[8];
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) r[i] = _mm512_shuffle_epi8(_mm512_loadu_si512(k + (c / 2 + i) * 32), swap);
#pragma GCC unroll 4
      for (int i = 0; i < 8; i += 2) {
        t[i] = _mm512_unpacklo_epi64(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi64(r[i], r[i + 1]);
      }
      uint16_t* to = v + c * 2;
      const int64_t pair = int64_t{v_dim} * 2;
#pragma GCC unroll 2
      for (int odd = 0; odd < 2; ++odd) {
        const __m512i a = _mm512_shuffle_i64x2(t[odd], t[2 + odd], 0x88),
                      b = _mm512_shuffle_i64x2(t[4 + odd], t[6 + odd], 0x88);
        const __m512i d = _mm512_shuffle_i64x2(t[odd], t[2 + odd], 0xDD),
                      e = _mm512_shuffle_i64x2(t[4 + odd], t[6 + odd], 0xDD);
        _mm512_storeu_si512(to + odd * pair, _mm512_shuffle_i64x2(a, b, 0x88));
        _mm512_storeu_si512(to + (2 + odd) * pair, _mm512_shuffle_i64x2(d, e, 0x88));
        _mm512_storeu_si512(to + (4 + odd) * pair, _mm512_shuffle_i64x2(a, b, 0xDD));
        _mm512_storeu_si512(to + (6 + odd) * pair, _mm512_shuffle_i64x2(d, e, 0xDD));
      }
    }
    for (; c < v_dim; ++c) {
      const uint16_t* column = k + c / 2 * 32 + c % 2;
      for (int token = 0; token < 16; ++token) v[(token / 2 * v_dim + c) * 2 + token % 2] = column[token * 2];
    }
  }

  CADRE_INLINE F DupPairs(const float* p) {
    const __m512i index = _mm512_set_epi32(7, 7, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1, 0, 0);
    return _mm512_permutexvar_ps(index, _mm512_castps256_ps512(_mm256_loadu_ps(p)));
  }
  CADRE_INLINE F SwapPairs(F a) {
    return _mm512_permute_ps(a, 0xB1);
  }
};

}  // namespace
}  // namespace cadre::kernels::avx512
