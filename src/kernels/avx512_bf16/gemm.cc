#include "kernels/avx512_bf16/fp8_vec.h"
#include "kernels/fp8_templates.h"
#include "kernels/gemm_epilogues.h"
#include "kernels/gemm_templates.h"

namespace cadre::kernels::avx512_bf16 {
namespace {

struct Vec : Fp8Vec {
  static I BroadcastRaw(const uint32_t* from) { return _mm512_set1_epi32(static_cast<int>(*from)); }
  static F Dot(I a, I b, F c) {
    return _mm512_dpbf16_ps(c, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
  }
};

}  // namespace

constinit const GemmKernels kGemmKernels = {
    .f32 = MakeWeightKernels<Vec, F32Weight, Units::kF32, 12, 12, 6>(0.3f),
    .bf16 = MakeWeightKernels<Vec, DotWeight, Units::kPairs, 12, 12, 6>(0.3f),
    .fp8 = MakeFp8Kernels<Vec, true, 12, 12, 5, 8>(0.6f),
    .fp8_f32 = MakeFp8F32Kernels<Vec, 12, 12, 5>(1.2f),
    .store = &Store<Vec>,
    .activate = &Activate<Vec>,
};

}  // namespace cadre::kernels::avx512_bf16
