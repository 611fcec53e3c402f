#include "kernels/avx512/gemm_vec.h"
#include "kernels/fp8_templates.h"
#include "kernels/gemm_epilogues.h"
#include "kernels/gemm_templates.h"

namespace cadre::kernels::avx512 {
namespace {

constexpr signed char kExponents[16] = {0,    0x3C, 0x3D, 0x3D, 0x3E, 0x3E, 0x3F, 0x3F,
                                        0x40, 0x40, 0x41, 0x41, 0x42, 0x42, 0x43, 0x43},
                      kSmallHigh[16] = {0, 0x3B, 0x3B, 0x3B, 0x3C, 0x3C, 0x3C, 0x3C},
                      kSmallLow[16] = {0, 0, -128, -64, 0, 0x20, 0x40, 0x60};

struct Vec : GemmVec {
  // As avx2's.
  static void DecodeFp8(const std::byte* from, I& first, I& second) {
    const __m512i x = LoadRaw(from), magnitude = _mm512_and_si512(x, _mm512_set1_epi8(0x7F));
    const __m512i exponents = FourTimes(kExponents), small_high = FourTimes(kSmallHigh),
                  small_low = FourTimes(kSmallLow);
    const __m512i exponent = _mm512_and_si512(
        reinterpret_cast<__m512i>(reinterpret_cast<Words>(magnitude) >> 3), _mm512_set1_epi8(0x0F));
    const __mmask64 small = _mm512_test_epi8_mask(x, _mm512_set1_epi8(0x78)) ^ ~__mmask64{0},
                    nan = _mm512_cmpeq_epi8_mask(magnitude, _mm512_set1_epi8(0x7F));
    __m512i high = _mm512_shuffle_epi8(exponents, exponent),
            low = _mm512_and_si512(reinterpret_cast<__m512i>(reinterpret_cast<Words>(x) << 4),
                                   _mm512_set1_epi8(-16));
    high = _mm512_mask_shuffle_epi8(high, small, small_high, magnitude);
    low = _mm512_mask_shuffle_epi8(low, small, small_low, magnitude);
    high = _mm512_mask_mov_epi8(high, nan, magnitude);
    high = _mm512_or_si512(high, _mm512_and_si512(x, _mm512_set1_epi8(-128)));
    first = _mm512_unpacklo_epi8(low, high);
    second = _mm512_unpackhi_epi8(low, high);
  }

 private:
  using Words = uint16_t __attribute__((vector_size(64)));
  // From memory: GCC 12 warns falsely inside _mm512_broadcast_i32x4.
  static __m512i FourTimes(const signed char (&bytes)[16]) {
    using Sixteen = signed char __attribute__((vector_size(16)));
    Sixteen v;
    __builtin_memcpy(&v, bytes, 16);
    return reinterpret_cast<__m512i>(
        __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5,
                                6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,
                                13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
  }
};

}  // namespace

constinit const GemmKernels kGemmKernels = {
    .f32 = MakeWeightKernels<Vec, F32Weight, Units::kF32, 12, 12, 6>(0.3f),
    .bf16 = MakeWeightKernels<Vec, WidenedWeight, Units::kWidened, 12, 12, 5>(0.6f),
    .fp8 = MakeFp8Kernels<Vec, false, 12, 12, 5, 8>(1.2f),
    .fp8_f32 = MakeFp8F32Kernels<Vec, 12, 12, 5>(1.2f),
    .store = &Store<Vec>,
    .activate = &Activate<Vec>,
};

}  // namespace cadre::kernels::avx512
