#pragma once
// Functions of sixteen lanes, over an instruction set's struct V (see portable/simd.h). Everything here has
// internal linkage: the linker must never merge code of two instruction sets.

namespace cadre::kernels {
namespace {

/// e^x within 2 units in the last place on [-87.33, 88.37]; 0 below, infinity above, NaN stays NaN. A lane's
/// result depends on nothing but its x. Range reduction by ln 2 in two parts, then a polynomial of degree 7
/// for e^r, |r| <= ln(2) / 2 (coefficients of the Cephes library).
template <class V>
inline __attribute__((always_inline)) typename V::F Exp(const typename V::F& x) {
  using F = typename V::F;
  const F low = V::Set(-87.33f), high = V::Set(88.37f);
  const F clamped = V::Min(high, V::Max(low, x));  // in this order NaN passes
  const F n = V::Round(V::Mul(clamped, V::Set(1.44269504f)));
  F r = V::Fma(n, V::Set(-0.693359375f), clamped);
  r = V::Fma(n, V::Set(2.12194440e-4f), r);
  F p = V::Set(1.9875691500e-4f);
  p = V::Fma(p, r, V::Set(1.3981999507e-3f));
  p = V::Fma(p, r, V::Set(8.3334519073e-3f));
  p = V::Fma(p, r, V::Set(4.1665795894e-2f));
  p = V::Fma(p, r, V::Set(1.6666665459e-1f));
  p = V::Fma(p, r, V::Set(5.0000001201e-1f));
  p = V::Fma(p, V::Mul(r, r), V::Add(r, V::Set(1.0f)));
  p = V::Mul(p, V::Pow2(n));
  p = V::IfLess(x, low, V::Zero(), p);
  return V::IfLess(high, x, V::Set(__builtin_inff()), p);
}

/// 1 / (1 + e^-x)
template <class V>
inline __attribute__((always_inline)) typename V::F Sigmoid(const typename V::F& x) {
  const typename V::F one = V::Set(1.0f);
  return V::Div(one, V::Add(one, Exp<V>(V::Sub(V::Zero(), x))));
}

}  // namespace
}  // namespace cadre::kernels
