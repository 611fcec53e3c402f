// Four lanes in the compiler's own vectors: SSE2 on x86-64, whatever there is elsewhere.
#include "kernels/fp8_templates.h"
#include "kernels/gemm_epilogues.h"
#include "kernels/gemm_templates.h"

#include "tensor/fp8.h"

namespace cadre::kernels::portable {
namespace {

struct Fp8Table {
  uint16_t bf16[256];
};
constexpr Fp8Table kFp8Table = [] {
  Fp8Table table{};
  for (int code = 0; code < 256; ++code) table.bf16[code] = Fp8ToBf16Bits(static_cast<uint8_t>(code));
  return table;
}();

struct Vec {
  using F = float __attribute__((vector_size(16)));
  using I = uint32_t __attribute__((vector_size(16)));
  using U = I;
  using Half = uint16_t __attribute__((vector_size(8)));
  static constexpr int kLanes = 4;
  static F Zero() { return F{0, 0, 0, 0}; }
  static F Load(const float* from) {
    F v;
    __builtin_memcpy(&v, from, sizeof(v));
    return v;
  }
  static void Store(float* to, F v) { __builtin_memcpy(to, &v, sizeof(v)); }
  static F Broadcast(const float* from) { return F{*from, *from, *from, *from}; }
  static F Fma(F a, F b, F c) { return c + a * b; }
  static I LoadRaw(const std::byte* from) {
    I v;
    __builtin_memcpy(&v, from, sizeof(v));
    return v;
  }
  static F Low(I raw) { return reinterpret_cast<F>(raw << 16); }
  static F High(I raw) { return reinterpret_cast<F>(raw & 0xFFFF0000u); }
  static void DecodeFp8(const std::byte* from, I& first, I& second) {
    uint16_t bits[16];
    for (int i = 0; i < 16; ++i) bits[i] = kFp8Table.bf16[static_cast<uint8_t>(from[i])];
    __builtin_memcpy(&first, bits, 16);
    __builtin_memcpy(&second, bits + 8, 16);
  }
};

}  // namespace

constinit const GemmKernels kGemmKernels = {
    .f32 = MakeWeightKernels<Vec, F32Weight, Units::kF32, 3, 1, 0>(2.2f),
    .bf16 = MakeWeightKernels<Vec, WidenedWeight, Units::kWidened, 3, 1, 0>(4.5f),
    .fp8 = MakeFp8Kernels<Vec, false, 3, 1, 0, 1>(9.0f),
    .fp8_f32 = MakeFp8F32Kernels<Vec, 3, 1, 0>(9.0f),
    .store = &Store<Vec>,
    .activate = &Activate<Vec>,
};

}  // namespace cadre::kernels::portable
