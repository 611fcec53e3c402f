#include "kernels/amx_emulated/tiles.h"
#include "kernels/avx512_bf16/fp8_vec.h"

namespace cadre::kernels::amx_emulated {

constinit const WeightKernels kBf16Kernels = MakeAmxBf16Kernels<Tiles>();
constinit const WeightKernels kFp8Kernels = MakeAmxFp8Kernels<Tiles, avx512_bf16::Fp8Vec>();

}  // namespace cadre::kernels::amx_emulated
