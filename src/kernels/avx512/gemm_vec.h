#pragma once
// Sixteen floats, as gemm_templates.h wants them.
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace cadre::kernels::avx512 {
namespace {

struct GemmVec {
  using F = __m512;
  using I = __m512i;
  using U = __v16su;
  using Half = uint16_t __attribute__((vector_size(32)));
  static constexpr int kLanes = 16;
  static F Zero() { return _mm512_setzero_ps(); }
  static F Load(const float* from) { return _mm512_loadu_ps(from); }
  static void Store(float* to, F v) { _mm512_storeu_ps(to, v); }
  static F Broadcast(const float* from) { return _mm512_set1_ps(*from); }
  static F Fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static I LoadRaw(const std::byte* from) { return _mm512_loadu_si512(from); }
  // An operator: GCC 12 warns falsely inside _mm512_slli_epi32.
  static F Low(I raw) { return reinterpret_cast<F>(reinterpret_cast<U>(raw) << 16); }
  static F High(I raw) { return _mm512_castsi512_ps(_mm512_and_si512(raw, _mm512_set1_epi32(-65536))); }
};

}  // namespace
}  // namespace cadre::kernels::avx512
