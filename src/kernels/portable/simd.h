#pragma once
// Sixteen floats in plain C++ (the compiler's vector extension, four lanes at a time): the vocabulary that
// attention_templates.h and row_templates.h are written in. Every instruction set has such a struct; its
// meaning is said here once.
#include <cstdint>
#include <cstring>

#include "kernels/simd_inline.h"

namespace cadre::kernels::portable {
namespace {

struct Simd {
  using F4 = float __attribute__((vector_size(16)));
  using I4 = int32_t __attribute__((vector_size(16)));
  struct F {
    F4 v[4];
  };
  struct U {
    I4 v[4];
  };

  static constexpr int kMaxRows = 2;                                         ///< rows of a register block
  static constexpr int Blocks(int rows, bool) { return rows == 1 ? 2 : 1; }  ///< vectors beside each row

  CADRE_INLINE F Set(float x) { return {{F4{x, x, x, x}, F4{x, x, x, x}, F4{x, x, x, x}, F4{x, x, x, x}}}; }
  CADRE_INLINE F Zero() { return Set(0.0f); }
  CADRE_INLINE F Load(const float* p) {
    F r;
    memcpy(&r, p, 64);
    return r;
  }
  CADRE_INLINE void Store(float* p, const F& a) { memcpy(p, &a, 64); }
  /// The first n < 16 lanes; the others are zero. Memory behind them is not touched.
  CADRE_INLINE F LoadPart(const float* p, int n) {
    F r = Zero();
    memcpy(&r, p, static_cast<size_t>(n) * 4);
    return r;
  }
  CADRE_INLINE void StorePart(float* p, const F& a, int n) { memcpy(p, &a, static_cast<size_t>(n) * 4); }
  CADRE_INLINE F Add(F a, const F& b) {
    for (int i = 0; i < 4; ++i) a.v[i] += b.v[i];
    return a;
  }
  CADRE_INLINE F Sub(F a, const F& b) {
    for (int i = 0; i < 4; ++i) a.v[i] -= b.v[i];
    return a;
  }
  CADRE_INLINE F Mul(F a, const F& b) {
    for (int i = 0; i < 4; ++i) a.v[i] *= b.v[i];
    return a;
  }
  CADRE_INLINE F Div(F a, const F& b) {
    for (int i = 0; i < 4; ++i) a.v[i] /= b.v[i];
    return a;
  }
  /// a * b + c, rounded once where the machine can.
  CADRE_INLINE F Fma(F a, const F& b, const F& c) {
    for (int i = 0; i < 4; ++i) a.v[i] = a.v[i] * b.v[i] + c.v[i];
    return a;
  }
  /// a > b ? a : b, so b where either is NaN.
  CADRE_INLINE F Max(F a, const F& b) {
    for (int i = 0; i < 4; ++i) a.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i];
    return a;
  }
  CADRE_INLINE F Min(F a, const F& b) {
    for (int i = 0; i < 4; ++i) a.v[i] = a.v[i] < b.v[i] ? a.v[i] : b.v[i];
    return a;
  }
  /// a < b ? yes : no.
  CADRE_INLINE F IfLess(const F& a, const F& b, F yes, const F& no) {
    for (int i = 0; i < 4; ++i) yes.v[i] = a.v[i] < b.v[i] ? yes.v[i] : no.v[i];
    return yes;
  }
  /// Lanes begin <= i < end of a, `fill` elsewhere.
  CADRE_INLINE F Keep(const F& a, int begin, int end, float fill) {
    float x[16];
    memcpy(x, &a, 64);
    for (int i = 0; i < 16; ++i) x[i] = i >= begin && i < end ? x[i] : fill;
    return Load(x);
  }
  /// To the nearest integer, |a| < 2^22.
  CADRE_INLINE F Round(const F& a) {
    const F magic = Set(12582912.0f);  // 1.5 * 2^23: the sum has no bits behind the point
    return Sub(Add(a, magic), magic);
  }
  /// 2^n for integers -126 <= n <= 127.
  CADRE_INLINE F Pow2(const F& n) {
    F r;
    for (int i = 0; i < 4; ++i) {
      const I4 bits = (__builtin_convertvector(n.v[i], I4) + 127) << 23;
      memcpy(&r.v[i], &bits, 16);
    }
    return r;
  }
  /// Sum in a fixed tree.
  CADRE_INLINE float ReduceAdd(const F& a) {
    const F4 s = (a.v[0] + a.v[2]) + (a.v[1] + a.v[3]);
    return (s[0] + s[2]) + (s[1] + s[3]);
  }
  CADRE_INLINE float ReduceMax(const F& a) {
    float x[16];
    memcpy(x, &a, 64);
    for (int i = 1; i < 16; ++i) x[0] = x[i] > x[0] ? x[i] : x[0];
    return x[0];
  }
  /// Bit i is set where a[i] == b[i].
  CADRE_INLINE uint32_t EqualMask(const F& a, const F& b) {
    uint32_t mask = 0;
    for (int i = 0; i < 16; ++i) mask |= static_cast<uint32_t>(a.v[i / 4][i % 4] == b.v[i / 4][i % 4]) << i;
    return mask;
  }

  CADRE_INLINE U LoadRaw(const void* p) {
    U r;
    memcpy(&r, p, 64);
    return r;
  }
  CADRE_INLINE U LoadRawPart(const void* p, int n) {
    U r{};
    memcpy(&r, p, static_cast<size_t>(n) * 4);
    return r;
  }
  /// The bf16 in the lower / upper half of each 32-bit lane.
  CADRE_INLINE F Low(const U& a) {
    F r;
    for (int i = 0; i < 4; ++i) {
      const I4 bits = a.v[i] << 16;
      memcpy(&r.v[i], &bits, 16);
    }
    return r;
  }
  CADRE_INLINE F High(const U& a) {
    F r;
    for (int i = 0; i < 4; ++i) {
      const I4 bits = a.v[i] & static_cast<int32_t>(0xFFFF0000);
      memcpy(&r.v[i], &bits, 16);
    }
    return r;
  }

  CADRE_INLINE uint16_t Bf16Bits(float f) {
    uint32_t u;
    memcpy(&u, &f, 4);
    if ((u & 0x7FFFFFFF) > 0x7F800000) return static_cast<uint16_t>(u >> 16 | 0x40);
    return static_cast<uint16_t>((u + 0x7FFF + (u >> 16 & 1)) >> 16);
  }
  /// Sixteen bf16 as floats.
  CADRE_INLINE F LoadBf16(const uint16_t* p) { return LoadBf16Part(p, 16); }
  CADRE_INLINE F LoadBf16Part(const uint16_t* p, int n) {
    uint32_t bits[16] = {};
    for (int i = 0; i < n; ++i) bits[i] = uint32_t{p[i]} << 16;
    F r;
    memcpy(&r, bits, 64);
    return r;
  }
  /// Rounds to nearest even; returns what was stored, as floats.
  CADRE_INLINE F StoreBf16(uint16_t* p, const F& a) { return StoreBf16Part(p, a, 16); }
  CADRE_INLINE F StoreBf16Part(uint16_t* p, const F& a, int n) {
    float x[16];
    memcpy(x, &a, 64);
    for (int i = 0; i < n; ++i) p[i] = Bf16Bits(x[i]);
    return LoadBf16Part(p, n);
  }
  CADRE_INLINE F RoundBf16(const F& a) {
    uint16_t bits[16];
    return StoreBf16(bits, a);
  }

  /// A latent panel [k/2][16 tokens][2] to V's order [8 token pairs][v_dim][2], its first v_dim columns.
  CADRE_INLINE void TransposeBf16(const uint16_t* k, int v_dim, uint16_t* v) {
    for (int c = 0; c < v_dim; ++c) {
      const uint16_t* column = k + c / 2 * 32 + c % 2;
      for (int token = 0; token < 16; ++token) v[(token / 2 * v_dim + c) * 2 + token % 2] = column[token * 2];
    }
  }

  /// p0 p0 p1 p1 ... p7 p7
  CADRE_INLINE F DupPairs(const float* p) {
    F r;
    for (int i = 0; i < 4; ++i) r.v[i] = F4{p[2 * i], p[2 * i], p[2 * i + 1], p[2 * i + 1]};
    return r;
  }
  /// a1 a0 a3 a2 ...
  CADRE_INLINE F SwapPairs(const F& a) {
    F r;
    for (int i = 0; i < 4; ++i) r.v[i] = F4{a.v[i][1], a.v[i][0], a.v[i][3], a.v[i][2]};
    return r;
  }
};

}  // namespace
}  // namespace cadre::kernels::portable
