#pragma once
// The row-wise operations over an instruction set's struct V (see portable/simd.h and row_kernels.h).
#include "kernels/math_templates.h"
#include "kernels/row_kernels.h"
#include "kernels/simd_inline.h"

namespace cadre::kernels {
namespace {

// Calls body(column, lanes) for each 16 columns; lanes < 16 only for the last ones.
template <class Body>
inline __attribute__((always_inline)) void ForVectors(int64_t n, Body body) {
  int64_t c = 0;
  for (; c + 16 <= n; c += 16) body(c, 16);
  if (c < n) body(c, static_cast<int>(n - c));
}

template <class V>
struct RowOps {
  using F = typename V::F;

  CADRE_INLINE F Load(const float* p, int lanes) { return lanes == 16 ? V::Load(p) : V::LoadPart(p, lanes); }
  CADRE_INLINE void Store(float* p, const F& a, int lanes) {
    if (lanes == 16) {
      V::Store(p, a);
    } else {
      V::StorePart(p, a, lanes);
    }
  }
  CADRE_INLINE F LoadAny(const void* p, bool bf16, int64_t c, int lanes) {
    if (!bf16) return Load(static_cast<const float*>(p) + c, lanes);
    const auto* q = static_cast<const uint16_t*>(p) + c;
    return lanes == 16 ? V::LoadBf16(q) : V::LoadBf16Part(q, lanes);
  }
  CADRE_INLINE void StoreAny(void* p, bool bf16, int64_t c, const F& a, int lanes) {
    if (!bf16) return Store(static_cast<float*>(p) + c, a, lanes);
    auto* q = static_cast<uint16_t*>(p) + c;
    if (lanes == 16) {
      V::StoreBf16(q, a);
    } else {
      V::StoreBf16Part(q, a, lanes);
    }
  }

  static float SumOfSquares(const float* x, int64_t n) {
    F sum[4] = {V::Zero(), V::Zero(), V::Zero(), V::Zero()};
    int64_t c = 0;
    for (; c + 64 <= n; c += 64) {
      for (int i = 0; i < 4; ++i) {
        const F v = V::Load(x + c + 16 * i);
        sum[i] = V::Fma(v, v, sum[i]);
      }
    }
    for (int i = 0; c < n; c += 16, ++i) {
      const F v = Load(x + c, n - c < 16 ? static_cast<int>(n - c) : 16);
      sum[i] = V::Fma(v, v, sum[i]);
    }
    return V::ReduceAdd(V::Add(V::Add(sum[0], sum[1]), V::Add(sum[2], sum[3])));
  }

  static void RmsNorm(const float* x, const float* weight, int64_t width, float eps, void* out, bool out_bf16,
                      float* out_f32) {
    const float mean = SumOfSquares(x, width) / static_cast<float>(width);
    const F scale = V::Set(1.0f / __builtin_sqrtf(mean + eps));
    ForVectors(
        width, [&](int64_t c, int lanes) __attribute__((always_inline)) {
          const F y = V::Mul(V::Mul(Load(x + c, lanes), scale), Load(weight + c, lanes));
          StoreAny(out, out_bf16, c, y, lanes);
          if (out_f32 != nullptr) Store(out_f32 + c, y, lanes);
        });
  }

  static void RopeHalves(float* x, int half, const float* cos, const float* sin) {
    ForVectors(
        half, [&](int64_t c, int lanes) __attribute__((always_inline)) {
          const F a = Load(x + c, lanes), b = Load(x + half + c, lanes);
          const F co = Load(cos + c, lanes), si = Load(sin + c, lanes);
          Store(x + c, V::Sub(V::Mul(a, co), V::Mul(b, si)), lanes);
          Store(x + half + c, V::Add(V::Mul(b, co), V::Mul(a, si)), lanes);
        });
  }
  static void RopePairs(float* x, int dim, const float* cos, const float* sin) {
    alignas(64) static constexpr float kSigns[16] = {-1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1};
    int c = 0;
    for (; c + 16 <= dim; c += 16) {
      const F v = V::Load(x + c);
      const F turned = V::Mul(V::Mul(V::SwapPairs(v), V::Load(kSigns)), V::DupPairs(sin + c / 2));
      V::Store(x + c, V::Add(V::Mul(v, V::DupPairs(cos + c / 2)), turned));
    }
    for (; c < dim; c += 2) {
      const float a = x[c], b = x[c + 1], co = cos[c / 2], si = sin[c / 2];
      x[c] = a * co + -b * si;
      x[c + 1] = b * co + a * si;
    }
  }
  static void Rope(float* x, int num_heads, int head_dim, int dim, bool interleaved, const float* cos,
                   const float* sin) {
    for (int h = 0; h < num_heads; ++h, x += head_dim) {
      if (interleaved) {
        RopePairs(x, dim, cos, sin);
      } else {
        RopeHalves(x, dim / 2, cos, sin);
      }
    }
  }

  static void ToBf16(const float* x, int64_t n, uint16_t* out) {
    ForVectors(
        n, [&](int64_t c, int lanes)
               __attribute__((always_inline)) { StoreAny(out, true, c, Load(x + c, lanes), lanes); });
  }
  static void Scale(const void* x, bool x_bf16, int64_t n, float factor, float* out) {
    const F f = V::Set(factor);
    ForVectors(
        n, [&](int64_t c, int lanes) __attribute__((always_inline)) {
          Store(out + c, V::Mul(LoadAny(x, x_bf16, c, lanes), f), lanes);
        });
  }
  static void SiluMul(const float* gate, const float* up, int64_t n, void* out, bool out_bf16) {
    ForVectors(
        n, [&](int64_t c, int lanes) __attribute__((always_inline)) {
          const F g = Load(gate + c, lanes);
          const F y =
              V::Mul(V::Div(g, V::Add(V::Set(1.0f), Exp<V>(V::Sub(V::Zero(), g)))), Load(up + c, lanes));
          StoreAny(out, out_bf16, c, y, lanes);
        });
  }
  static void Combine(const float* rows, int64_t width, const int32_t* index, const float* weights, int top_k,
                      float* out, bool accumulate) {
    ForVectors(
        width, [&](int64_t c, int lanes) __attribute__((always_inline)) {
          F sum = V::Zero();
          bool any = false;  // the first term is taken as it is, not added to 0
          for (int k = 0; k < top_k; ++k) {
            if (index[k] < 0) continue;
            const F row = Load(rows + index[k] * width + c, lanes);
            if (weights == nullptr) {
              sum = any ? V::Add(sum, row) : row;
            } else {
              sum = any ? V::Fma(V::Set(weights[k]), row, sum) : V::Mul(V::Set(weights[k]), row);
            }
            any = true;
          }
          Store(out + c, accumulate ? V::Add(Load(out + c, lanes), sum) : sum, lanes);
        });
  }

  static float MaxOf(const float* x, int64_t n) {
    const F lowest = V::Set(-__builtin_inff());
    F best[4] = {lowest, lowest, lowest, lowest};
    int64_t c = 0;
    for (; c + 64 <= n; c += 64) {
      for (int i = 0; i < 4; ++i)
        best[i] = V::Max(V::Load(x + c + 16 * i), best[i]);  // in this order NaN loses
    }
    for (; c + 16 <= n; c += 16) best[0] = V::Max(V::Load(x + c), best[0]);
    float result = V::ReduceMax(V::Max(V::Max(best[0], best[1]), V::Max(best[2], best[3])));
    for (; c < n; ++c) result = x[c] > result ? x[c] : result;
    return result;
  }
  static int64_t Find(const float* x, int64_t n, float value) {
    const F wanted = V::Set(value);
    int64_t c = 0;
    for (; c + 16 <= n; c += 16) {
      const uint32_t mask = V::EqualMask(V::Load(x + c), wanted);
      if (mask != 0) return c + __builtin_ctz(mask);
    }
    for (; c < n; ++c) {
      if (x[c] == value) return c;
    }
    return -1;
  }
  static double SumExp(const float* x, int64_t n, float maximum) {
    const F m = V::Set(maximum);
    double sums[16] = {};
    ForVectors(
        n, [&](int64_t c, int lanes) __attribute__((always_inline)) {
          alignas(64) float e[16];
          V::Store(e, Exp<V>(V::Sub(Load(x + c, lanes), m)));
          for (int i = 0; i < lanes; ++i) sums[i] += static_cast<double>(e[i]);
        });
    double sum = 0;
    for (const double s : sums) sum += s;
    return sum;
  }

  static double SumAtLeast(const float* x, int64_t n, float least) {
    double sums[16] = {};
    ForVectors(
        n, [&](int64_t c, int lanes) __attribute__((always_inline)) {
          for (int i = 0; i < lanes; ++i) sums[i] += x[c + i] >= least ? static_cast<double>(x[c + i]) : 0.0;
        });
    double sum = 0;
    for (const double s : sums) sum += s;
    return sum;
  }
  // `below`: the largest number that is not wanted.
  static int64_t SelectAbove(const float* x, int64_t n, float below, int32_t* index) {
    const F bound = V::Set(below), one = V::Set(1.0f);
    int64_t count = 0, c = 0;
    for (; c + 16 <= n; c += 16) {
      uint32_t mask = V::EqualMask(V::IfLess(bound, V::Load(x + c), one, V::Zero()), one);
      for (; mask != 0; mask &= mask - 1) index[count++] = static_cast<int32_t>(c + __builtin_ctz(mask));
    }
    for (; c < n; ++c) {
      if (x[c] > below) index[count++] = static_cast<int32_t>(c);
    }
    return count;
  }

  static void Softmax(const float* x, int64_t n, float* out) {
    const F m = V::Set(MaxOf(x, n));
    F sum = V::Zero();
    ForVectors(
        n, [&](int64_t c, int lanes) __attribute__((always_inline)) {
          F e = Exp<V>(V::Sub(Load(x + c, lanes), m));
          if (lanes < 16) e = V::Keep(e, 0, lanes, 0.0f);
          sum = V::Add(sum, e);
          Store(out + c, e, lanes);
        });
    const F total = V::Set(V::ReduceAdd(sum));
    ForVectors(
        n, [&](int64_t c, int lanes) __attribute__((always_inline)) {
          Store(out + c, V::Div(Load(out + c, lanes), total), lanes);
        });
  }
  static void SigmoidRow(const float* x, int64_t n, float* out) {
    ForVectors(
        n, [&](int64_t c, int lanes)
               __attribute__((always_inline)) { Store(out + c, Sigmoid<V>(Load(x + c, lanes)), lanes); });
  }
  static void ScaledExp(const float* x, int64_t n, float maximum, float factor, float* out) {
    const F m = V::Set(maximum), f = V::Set(factor);
    ForVectors(
        n, [&](int64_t c, int lanes) __attribute__((always_inline)) {
          Store(out + c, Exp<V>(V::Mul(V::Sub(Load(x + c, lanes), m), f)), lanes);
        });
  }

  static constexpr RowKernels kKernels = {RmsNorm,    Rope,      ToBf16,     Scale,      SiluMul,
                                          Combine,    MaxOf,     Find,       SumExp,     Softmax,
                                          SigmoidRow, ScaledExp, SumAtLeast, SelectAbove};
};

}  // namespace
}  // namespace cadre::kernels
