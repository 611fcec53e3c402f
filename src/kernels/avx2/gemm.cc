#include <immintrin.h>

#include "kernels/fp8_templates.h"
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
  // The upper byte of a bf16 is the sign and the exponent + 120 without its lowest bit, which, with the
  // mantissa, makes the lower one; 120 is even. Codes without an exponent and NaN are put in their place.
  static void DecodeFp8(const std::byte* from, I& first, I& second) {
    const __m256i x = LoadRaw(from), magnitude = _mm256_and_si256(x, _mm256_set1_epi8(0x7F));
    const __m256i exponents = Twice(0, 0x3C, 0x3D, 0x3D, 0x3E, 0x3E, 0x3F, 0x3F, 0x40, 0x40, 0x41, 0x41, 0x42,
                                    0x42, 0x43, 0x43),
                  small_high = Twice(0, 0x3B, 0x3B, 0x3B, 0x3C, 0x3C, 0x3C, 0x3C, 0, 0, 0, 0, 0, 0, 0, 0),
                  small_low = Twice(0, 0, -128, -64, 0, 0x20, 0x40, 0x60, 0, 0, 0, 0, 0, 0, 0, 0);
    const __m256i exponent = _mm256_and_si256(_mm256_srli_epi16(magnitude, 3), _mm256_set1_epi8(0x0F));
    const __m256i small = _mm256_cmpeq_epi8(exponent, _mm256_setzero_si256()),
                  nan = _mm256_cmpeq_epi8(magnitude, _mm256_set1_epi8(0x7F));
    __m256i high = _mm256_shuffle_epi8(exponents, exponent),
            low = _mm256_and_si256(_mm256_slli_epi16(x, 4), _mm256_set1_epi8(-16));
    high = _mm256_blendv_epi8(high, _mm256_shuffle_epi8(small_high, magnitude), small);
    low = _mm256_blendv_epi8(low, _mm256_shuffle_epi8(small_low, magnitude), small);
    high = _mm256_or_si256(high, _mm256_and_si256(nan, magnitude));
    high = _mm256_or_si256(high, _mm256_and_si256(x, _mm256_set1_epi8(-128)));
    first = _mm256_unpacklo_epi8(low, high);
    second = _mm256_unpackhi_epi8(low, high);
  }

 private:
  template <class... Bytes>
  static __m256i Twice(Bytes... bytes) {
    return _mm256_broadcastsi128_si256(_mm_setr_epi8(static_cast<char>(bytes)...));
  }
};

}  // namespace

// 16 registers: six rows of one panel are 12 sums, and leave room for two columns, a row and the mask.
constinit const GemmKernels kGemmKernels = {
    .f32 = MakeWeightKernels<Vec, F32Weight, Units::kF32, 6, 3, 1>(0.3f),
    .bf16 = MakeWeightKernels<Vec, WidenedWeight, Units::kWidened, 6, 2, 1>(0.6f),
    .fp8 = MakeFp8Kernels<Vec, false, 6, 2, 1, 2>(1.2f),
    .fp8_f32 = MakeFp8F32Kernels<Vec, 6, 2, 1>(1.2f),
    .store = &Store<Vec>,
    .activate = &Activate<Vec>,
};

}  // namespace cadre::kernels::avx2
