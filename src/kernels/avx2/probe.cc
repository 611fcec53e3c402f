#include <immintrin.h>

#include "kernels/probe_kernels.h"

namespace cadre::kernels::avx2 {
namespace {

uint64_t Read(const std::byte* data, int64_t num_bytes, int64_t ahead) {
  __m256i any[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(),
                    _mm256_setzero_si256()};
  for (int64_t i = 0; i < num_bytes; i += 128) {
    if (ahead > 0) {
      _mm_prefetch(reinterpret_cast<const char*>(data + i + ahead), _MM_HINT_T0);
      _mm_prefetch(reinterpret_cast<const char*>(data + i + ahead + 64), _MM_HINT_T0);
    }
    for (int j = 0; j < 4; ++j) {
      any[j] =
          _mm256_or_si256(any[j], _mm256_load_si256(reinterpret_cast<const __m256i*>(data + i + 32 * j)));
    }
  }
  const __m256i all = _mm256_or_si256(_mm256_or_si256(any[0], any[1]), _mm256_or_si256(any[2], any[3]));
  return _mm256_testz_si256(all, all) ? 0 : 1;
}

int64_t Products(int64_t rounds) {
  constexpr int kChains = 12;  // latency 4 at two a cycle needs 8; 16 registers hold 12 and the operands
  __m256 sums[kChains];
  for (__m256& sum : sums) sum = _mm256_setzero_ps();
  __m256 a = _mm256_set1_ps(0.5f), b = _mm256_set1_ps(1.0f);
  for (int64_t round = 0; round < rounds; ++round) {
    __asm__ volatile("" : "+x"(a), "+x"(b));
    for (int i = 0; i < kChains; ++i) sums[i] = _mm256_fmadd_ps(a, b, sums[i]);
  }
  for (__m256& sum : sums) __asm__ volatile("" : "+x"(sum));
  return rounds * kChains * 8 * 2;
}

}  // namespace

// bf16 weights are widened and multiplied as f32 here.
const ProbeKernels kProbeKernels = {.read = Read, .bf16_products = Products, .f32_products = Products};

}  // namespace cadre::kernels::avx2
