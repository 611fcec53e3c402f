#pragma once
// Sixteen floats in two registers; portable/simd.h says what each function means.
#include <immintrin.h>

#include <cstdint>

#include "kernels/simd_inline.h"

namespace cadre::kernels::avx2 {
namespace {

struct Simd {
  struct F {
    __m256 a, b;  // lanes 0 to 7, 8 to 15
  };
  struct U {
    __m256i a, b;
  };

  static constexpr int kMaxRows = 4;
  // Of 16 registers: two for each sum, two or four for each line, one or two for the scalar.
  static constexpr int Blocks(int rows, bool wide) {
    return rows == 1 ? (wide ? 2 : 4) : rows == 2 && !wide ? 2 : 1;
  }

  // Lanes below n, for half 0 or 1.
  CADRE_INLINE __m256i First(int n, int half) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n - 8 * half), lane);
  }

  CADRE_INLINE F Set(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
  CADRE_INLINE F Zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  CADRE_INLINE F Load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
  CADRE_INLINE void Store(float* p, F x) {
    _mm256_storeu_ps(p, x.a);
    _mm256_storeu_ps(p + 8, x.b);
  }
  CADRE_INLINE F LoadPart(const float* p, int n) {
    return {_mm256_maskload_ps(p, First(n, 0)), _mm256_maskload_ps(p + 8, First(n, 1))};
  }
  CADRE_INLINE void StorePart(float* p, F x, int n) {
    _mm256_maskstore_ps(p, First(n, 0), x.a);
    _mm256_maskstore_ps(p + 8, First(n, 1), x.b);
  }
  CADRE_INLINE F Add(F x, F y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
  CADRE_INLINE F Sub(F x, F y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
  CADRE_INLINE F Mul(F x, F y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
  CADRE_INLINE F Div(F x, F y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
  CADRE_INLINE F Fma(F x, F y, F z) {
    return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
  }
  CADRE_INLINE F Max(F x, F y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
  CADRE_INLINE F Min(F x, F y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
  CADRE_INLINE F IfLess(F x, F y, F yes, F no) {
    return {_mm256_blendv_ps(no.a, yes.a, _mm256_cmp_ps(x.a, y.a, _CMP_LT_OQ)),
            _mm256_blendv_ps(no.b, yes.b, _mm256_cmp_ps(x.b, y.b, _CMP_LT_OQ))};
  }
  CADRE_INLINE F Keep(F x, int begin, int end, float fill) {
    const F other = Set(fill);
    const __m256i a = _mm256_andnot_si256(First(begin, 0), First(end, 0));
    const __m256i b = _mm256_andnot_si256(First(begin, 1), First(end, 1));
    return {_mm256_blendv_ps(other.a, x.a, _mm256_castsi256_ps(a)),
            _mm256_blendv_ps(other.b, x.b, _mm256_castsi256_ps(b))};
  }
  CADRE_INLINE F Round(F x) {
    return {_mm256_round_ps(x.a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC),
            _mm256_round_ps(x.b, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
  }
  CADRE_INLINE __m256 Pow2Half(__m256 n) {
    const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23));
  }
  CADRE_INLINE F Pow2(F n) { return {Pow2Half(n.a), Pow2Half(n.b)}; }
  CADRE_INLINE float ReduceAdd(F x) {
    const __m256 s = _mm256_add_ps(x.a, x.b);
    const __m128 t = _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
    const __m128 u = _mm_add_ps(t, _mm_movehl_ps(t, t));
    return _mm_cvtss_f32(_mm_add_ss(u, _mm_movehdup_ps(u)));
  }
  CADRE_INLINE float ReduceMax(F x) {
    const __m256 s = _mm256_max_ps(x.a, x.b);
    const __m128 t = _mm_max_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
    const __m128 u = _mm_max_ps(t, _mm_movehl_ps(t, t));
    return _mm_cvtss_f32(_mm_max_ss(u, _mm_movehdup_ps(u)));
  }
  CADRE_INLINE uint32_t EqualMask(F x, F y) {
    const int a = _mm256_movemask_ps(_mm256_cmp_ps(x.a, y.a, _CMP_EQ_OQ));
    const int b = _mm256_movemask_ps(_mm256_cmp_ps(x.b, y.b, _CMP_EQ_OQ));
    return static_cast<uint32_t>(a | b << 8);
  }

  CADRE_INLINE U LoadRaw(const void* p) {
    const auto* q = static_cast<const __m256i*>(p);
    return {_mm256_loadu_si256(q), _mm256_loadu_si256(q + 1)};
  }
  CADRE_INLINE U LoadRawPart(const void* p, int n) {
    const auto* q = static_cast<const int*>(p);
    return {_mm256_maskload_epi32(q, First(n, 0)), _mm256_maskload_epi32(q + 8, First(n, 1))};
  }
  CADRE_INLINE F Low(U x) {
    return {_mm256_castsi256_ps(_mm256_slli_epi32(x.a, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(x.b, 16))};
  }
  CADRE_INLINE F High(U x) {
    const __m256i mask = _mm256_set1_epi32(static_cast<int>(0xFFFF0000));
    return {_mm256_castsi256_ps(_mm256_and_si256(x.a, mask)),
            _mm256_castsi256_ps(_mm256_and_si256(x.b, mask))};
  }

  CADRE_INLINE F LoadBf16(const uint16_t* p) {
    const auto* q = reinterpret_cast<const __m128i*>(p);
    const U wide = {_mm256_cvtepu16_epi32(_mm_loadu_si128(q)), _mm256_cvtepu16_epi32(_mm_loadu_si128(q + 1))};
    return Low(wide);
  }
  CADRE_INLINE F LoadBf16Part(const uint16_t* p, int n) {
    alignas(32) uint16_t bits[16] = {};
    for (int i = 0; i < n; ++i) bits[i] = p[i];
    return LoadBf16(bits);
  }
  // The rounded value in the upper halves of the lanes.
  CADRE_INLINE __m256i RoundBits(__m256 x) {
    const __m256i bits = _mm256_castps_si256(x);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i sum = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7FFF)), odd);
    const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    return _mm256_blendv_epi8(sum, quiet, _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q)));
  }
  CADRE_INLINE F RoundBf16(F x) { return High(U{RoundBits(x.a), RoundBits(x.b)}); }
  CADRE_INLINE F StoreBf16(uint16_t* p, F x) {
    const U bits = {RoundBits(x.a), RoundBits(x.b)};
    // Packing works in 128-bit halves: 0-3, 8-11, 4-7, 12-15.
    const __m256i packed = _mm256_packus_epi32(_mm256_srli_epi32(bits.a, 16), _mm256_srli_epi32(bits.b, 16));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64(packed, 0xD8));
    return High(bits);
  }
  CADRE_INLINE F StoreBf16Part(uint16_t* p, F x, int n) {
    alignas(32) uint16_t bits[16];
    const F rounded = StoreBf16(bits, x);
    for (int i = 0; i < n; ++i) p[i] = bits[i];
    return rounded;
  }

  CADRE_INLINE void TransposeBf16(const uint16_t* k, int v_dim, uint16_t* v) {
    // 8 columns at a time are 4 lines; each half of a line is 4 token pairs of 64 bits (column 0 and 1 of a
    // token, then of the next): order the 16-bit values inside, then transpose 4 x 4.
    const __m256i swap = _mm256_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15,  //
                                          0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15);
    const int64_t pair = int64_t{v_dim} * 2;
    int c = 0;
    for (; c + 8 <= v_dim; c += 8) {
      for (int half = 0; half < 2; ++half) {
        __m256i r[4];
        for (int i = 0; i < 4; ++i) {
          const auto* line = reinterpret_cast<const __m256i*>(k + (c / 2 + i) * 32 + half * 16);
          r[i] = _mm256_shuffle_epi8(_mm256_loadu_si256(line), swap);
        }
        const __m256i t0 = _mm256_unpacklo_epi64(r[0], r[1]), t1 = _mm256_unpackhi_epi64(r[0], r[1]);
        const __m256i t2 = _mm256_unpacklo_epi64(r[2], r[3]), t3 = _mm256_unpackhi_epi64(r[2], r[3]);
        uint16_t* to = v + half * 4 * pair + c * 2;
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm256_permute2x128_si256(t0, t2, 0x20));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + pair), _mm256_permute2x128_si256(t1, t3, 0x20));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + 2 * pair),
                            _mm256_permute2x128_si256(t0, t2, 0x31));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + 3 * pair),
                            _mm256_permute2x128_si256(t1, t3, 0x31));
      }
    }
    for (; c < v_dim; ++c) {
      const uint16_t* column = k + c / 2 * 32 + c % 2;
      for (int token = 0; token < 16; ++token) v[(token / 2 * v_dim + c) * 2 + token % 2] = column[token * 2];
    }
  }

  CADRE_INLINE F DupPairs(const float* p) {
    const __m256 x = _mm256_loadu_ps(p);
    return {_mm256_permutevar8x32_ps(x, _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3)),
            _mm256_permutevar8x32_ps(x, _mm256_setr_epi32(4, 4, 5, 5, 6, 6, 7, 7))};
  }
  CADRE_INLINE F SwapPairs(F x) { return {_mm256_permute_ps(x.a, 0xB1), _mm256_permute_ps(x.b, 0xB1)}; }
};

}  // namespace
}  // namespace cadre::kernels::avx2
