#include <immintrin.h>

#include "kernels/fp8_templates.h"
#include "kernels/gemm_epilogues.h"
#include "kernels/gemm_templates.h"

#include "tensor/fp8.h"

namespace cadre::kernels::avx512_bf16 {
namespace {

// The two bytes of the bf16 number of each code without its sign.
struct Fp8Tables {
  alignas(64) uint8_t low[128], high[128];
};
constexpr Fp8Tables kFp8Tables = [] {
  Fp8Tables tables{};
  for (int code = 0; code < 128; ++code) {
    const uint16_t bits = Fp8ToBf16Bits(static_cast<uint8_t>(code));
    tables.low[code] = static_cast<uint8_t>(bits);
    tables.high[code] = static_cast<uint8_t>(bits >> 8);
  }
  return tables;
}();

struct Vec {
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
  static F Low(I raw) { return reinterpret_cast<F>(reinterpret_cast<U>(raw) << 16); }
  static F High(I raw) { return _mm512_castsi512_ps(_mm512_and_si512(raw, _mm512_set1_epi32(-65536))); }
  static I BroadcastRaw(const uint32_t* from) { return _mm512_set1_epi32(static_cast<int>(*from)); }
  static F Dot(I a, I b, F c) {
    return _mm512_dpbf16_ps(c, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
  }
  // Permutations look at the lower seven bits of a code alone.
  static void DecodeFp8(const std::byte* from, I& first, I& second) {
    const I x = LoadRaw(from);
    const I low = _mm512_permutex2var_epi8(_mm512_load_si512(kFp8Tables.low), x,
                                           _mm512_load_si512(kFp8Tables.low + 64)),
            bare = _mm512_permutex2var_epi8(_mm512_load_si512(kFp8Tables.high), x,
                                            _mm512_load_si512(kFp8Tables.high + 64));
    const I high = _mm512_or_si512(bare, _mm512_and_si512(x, _mm512_set1_epi8(-128)));
    first = _mm512_unpacklo_epi8(low, high);
    second = _mm512_unpackhi_epi8(low, high);
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
