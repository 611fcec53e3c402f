#include <immintrin.h>

#include "kernels/probe_kernels.h"

namespace cadre::kernels::avx512_bf16 {
namespace {

uint64_t Read(const std::byte* data, int64_t num_bytes, int64_t ahead) {
  __m512i any[4] = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512(),
                    _mm512_setzero_si512()};
  for (int64_t i = 0; i < num_bytes; i += 256) {
    for (int j = 0; j < 4; ++j) {
      if (ahead > 0) _mm_prefetch(reinterpret_cast<const char*>(data + i + 64 * j + ahead), _MM_HINT_T0);
      any[j] = _mm512_or_si512(any[j], _mm512_load_si512(data + i + 64 * j));
    }
  }
  const __m512i all = _mm512_or_si512(_mm512_or_si512(any[0], any[1]), _mm512_or_si512(any[2], any[3]));
  return _mm512_test_epi64_mask(all, all);
}

int64_t Products(int64_t rounds) {
  constexpr int kChains = 16;
  __m512 sums[kChains];
  for (__m512& sum : sums) sum = _mm512_setzero_ps();
  __m512 a = _mm512_set1_ps(0.5f), b = _mm512_set1_ps(1.0f);
  for (int64_t round = 0; round < rounds; ++round) {
    __asm__ volatile("" : "+v"(a), "+v"(b));
    for (int i = 0; i < kChains; ++i) sums[i] = _mm512_fmadd_ps(a, b, sums[i]);
  }
  for (__m512& sum : sums) __asm__ volatile("" : "+v"(sum));
  return rounds * kChains * 16 * 2;
}

int64_t Bf16Products(int64_t rounds) {
  constexpr int kChains = 16;
  __m512 sums[kChains];
  for (__m512& sum : sums) sum = _mm512_setzero_ps();
  const __m512 half = _mm512_set1_ps(0.5f);
  __m512bh a = _mm512_cvtne2ps_pbh(half, half), b = a;
  for (int64_t round = 0; round < rounds; ++round) {
    __asm__ volatile("" : "+v"(a), "+v"(b));
    for (int i = 0; i < kChains; ++i) sums[i] = _mm512_dpbf16_ps(sums[i], a, b);
  }
  for (__m512& sum : sums) __asm__ volatile("" : "+v"(sum));
  return rounds * kChains * 32 * 2;
}

}  // namespace

const ProbeKernels kProbeKernels = {.read = Read, .bf16_products = Bf16Products, .f32_products = Products};

}  // namespace cadre::kernels::avx512_bf16
