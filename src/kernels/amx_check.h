#pragma once
// Whether tile kernels multiply as they should: asked once before a CPU's own are used.
#include "kernels/gemm_kernels.h"

namespace cadre::kernels {

/// Multiplies small whole numbers, whose sums are exact in any order, with every shape of tile that `kernels`
/// (bf16) has, and compares with plain sums. Microseconds.
bool TilesMultiplyRight(const WeightKernels& kernels);

}  // namespace cadre::kernels
