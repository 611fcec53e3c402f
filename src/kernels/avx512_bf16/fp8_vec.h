#pragma once
// As avx512/gemm_vec.h, with e4m3 codes looked up in tables of 128 bytes (VBMI).
#include "kernels/avx512/gemm_vec.h"

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

struct Fp8Vec : avx512::GemmVec {
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
}  // namespace cadre::kernels::avx512_bf16
