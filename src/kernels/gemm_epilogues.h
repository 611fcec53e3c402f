#pragma once
// From tiles to memory, 16 columns at a time, as templates over the vector type V of gemm_templates.h. The
// arithmetic is the compiler's own on vectors, never contracted: the same in every instruction set, and a
// column of the last, partial line (which passes through a padded copy) gets the same bits as any other.
#include "kernels/gemm_kernels.h"

namespace cadre::kernels {
namespace {

// 16 columns.
template <class V>
struct Line {
  static constexpr int kVecs = 16 / V::kLanes;
  typename V::F v[kVecs] = {};

  void Load(const float* from) {
#pragma GCC unroll 4
    for (int i = 0; i < kVecs; ++i) v[i] = V::Load(from + i * V::kLanes);
  }
  void LoadPart(const float* from, int64_t cols) {
    if (cols >= 16) return Load(from);
    float copy[16] = {};
    for (int64_t c = 0; c < cols; ++c) copy[c] = from[c];
    Load(copy);
  }
  void Store(float* to) const {
#pragma GCC unroll 4
    for (int i = 0; i < kVecs; ++i) V::Store(to + i * V::kLanes, v[i]);
  }
  // Rounds to nearest even; NaN stays NaN.
  void StoreBf16(uint16_t* to) const {
    using U = typename V::U;
    using Half = typename V::Half;
#pragma GCC unroll 4
    for (int i = 0; i < kVecs; ++i) {
      const U u = reinterpret_cast<U>(v[i]);
      const U rounded = (u + 0x7FFF + (u >> 16 & 1)) >> 16, nan = u >> 16 | 0x40;
      const Half half = __builtin_convertvector((u & 0x7FFFFFFF) > 0x7F800000 ? nan : rounded, Half);
      __builtin_memcpy(to + i * V::kLanes, &half, sizeof(half));
    }
  }
  void StorePart(void* to, bool bf16, int64_t cols) const {
    if (cols >= 16) {
      if (bf16) return StoreBf16(static_cast<uint16_t*>(to));
      return Store(static_cast<float*>(to));
    }
    if (bf16) {
      uint16_t copy[16];
      StoreBf16(copy);
      for (int64_t c = 0; c < cols; ++c) static_cast<uint16_t*>(to)[c] = copy[c];
    } else {
      float copy[16];
      Store(copy);
      for (int64_t c = 0; c < cols; ++c) static_cast<float*>(to)[c] = copy[c];
    }
  }
  void Add(const Line& other) {
#pragma GCC unroll 4
    for (int i = 0; i < kVecs; ++i) v[i] = v[i] + other.v[i];
  }
};

// e^x to 2 ulp for |x| <= 87, held there beyond. x = n ln 2 + r with ln 2 in two parts, then Taylor up to
// r^7, |r| < 0.35.
template <class V>
typename V::F Exp(typename V::F x) {
  using F = typename V::F;
  using U = typename V::U;
  constexpr float kRound =
      12582912.0f;  // 1.5 * 2^23: adding it leaves round(x) in the low bits of the mantissa
  const F most = V::Zero() + 87.0f;
  x = x > most ? most : x;
  x = x < -most ? -most : x;
  const F shifted = x * 1.44269504f + kRound;
  const F n = shifted - kRound;
  const F r = (x - n * 0.693145752f) - n * 1.42860677e-6f;
  F p = r * 1.98412698e-4f + 1.38888889e-3f;
  p = p * r + 8.33333333e-3f;
  p = p * r + 4.16666667e-2f;
  p = p * r + 1.66666667e-1f;
  p = p * r + 0.5f;
  p = p * r * r + r + 1.0f;
  const U scale = (reinterpret_cast<U>(shifted) << 23) + 0x3F800000u;  // 2^n
  return p * reinterpret_cast<F>(scale);
}

template <class V>
void Store(const StoreArgs& args) {
  const int64_t c_bytes = args.bf16 ? 2 : 4;
  for (int64_t begin = 0; begin < args.cols; begin += 16) {
    const int64_t cols = args.cols - begin;  // of which up to 16 now
    Line<V> bias;
    if (args.bias != nullptr) bias.LoadPart(args.bias + begin, cols);
    for (int r = 0; r < args.rows; ++r) {
      char* c = static_cast<char*>(args.c) + (r * args.c_stride + begin) * c_bytes;
      Line<V> line;
      line.Load(args.tile + r * kTileStride + begin);
      if (args.bias != nullptr) line.Add(bias);
      if (args.row_weights != nullptr) {
        for (auto& v : line.v) v = v * args.row_weights[r];
      }
      if (args.accumulate) {
        Line<V> sum;
        sum.LoadPart(reinterpret_cast<const float*>(c), cols);
        sum.Add(line);
        line = sum;
      }
      line.StorePart(c, args.bf16, cols);
    }
  }
}

template <class V>
typename V::F Swiglu(const ActivateArgs& args, typename V::F gate, typename V::F up) {
  using F = typename V::F;
  if (!args.clamped_swiglu) return gate / (1.0f + Exp<V>(-gate)) * up;
  const F limit = V::Zero() + args.limit;
  gate = gate > limit ? limit : gate;
  up = up > limit ? limit : up;
  up = up < -limit ? -limit : up;
  return gate / (1.0f + Exp<V>(-(gate * args.alpha))) * (up + 1.0f);
}

template <class V>
void Activate(const ActivateArgs& args) {
  const int64_t out_bytes = args.bf16 ? 2 : 4;
  for (int64_t begin = 0; begin < args.cols; begin += 16) {
    Line<V> gate_bias, up_bias;
    if (args.bias != nullptr) {
      gate_bias.Load(args.bias + begin * 2);
      up_bias.Load(args.bias + begin * 2 + 16);
    }
    for (int r = 0; r < args.rows; ++r) {
      const float* tile = args.tile + r * kTileStride + begin * 2;
      Line<V> gate, up;
      gate.Load(tile);
      up.Load(tile + 16);
      if (args.bias != nullptr) {
        gate.Add(gate_bias);
        up.Add(up_bias);
      }
      for (int i = 0; i < Line<V>::kVecs; ++i) gate.v[i] = Swiglu<V>(args, gate.v[i], up.v[i]);
      gate.StorePart(static_cast<char*>(args.out) + (r * args.out_stride + begin) * out_bytes, args.bf16,
                     args.cols - begin);
    }
  }
}

}  // namespace
}  // namespace cadre::kernels
