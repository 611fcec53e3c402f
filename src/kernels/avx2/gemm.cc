#include <immintrin.h>

#include "kernels/gemm_epilogues.h"
#include "kernels/gemm_templates.h"

namespace cadre::kernels::avx2 {
namespace {

struct Vec {
  using F = __m256;
  using I = __m256i;
  using U = __v8su;
  using Half = uint16_t __attribute__((vector_size(16)));
  static constexpr int kLanes = 8;
  static F Zero() { return _mm256_setzero_ps(); }
  static F Load(const float* from) { return _mm256_loadu_ps(from); }
  static void Store(float* to, F v) { _mm256_storeu_ps(to, v); }
  static F Broadcast(const float* from) { return _mm256_broadcast_ss(from); }
  static F Fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  static I LoadRaw(const std::byte* from) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  }
  static F Low(I raw) { return _mm256_castsi256_ps(_mm256_slli_epi32(raw, 16)); }
  static F High(I raw) { return _mm256_castsi256_ps(_mm256_and_si256(raw, _mm256_set1_epi32(-65536))); }
};

}  // namespace

// 16 registers: six rows of one panel are 12 sums, and leave room for two columns, a row and the mask.
constinit const GemmKernels kGemmKernels = {
    .f32 = MakeWeightKernels<Vec, F32Weight, Units::kF32, 6, 3, 1>(0.3f),
    .bf16 = MakeWeightKernels<Vec, WidenedWeight, Units::kWidened, 6, 2, 1>(0.6f),
    .store = &Store<Vec>,
    .activate = &Activate<Vec>,
};

}  // namespace cadre::kernels::avx2
