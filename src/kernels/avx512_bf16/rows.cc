#include "kernels/avx512_bf16/simd.h"
#include "kernels/row_templates.h"

namespace cadre::kernels::avx512_bf16 {

const RowKernels kRowKernels = RowOps<Simd>::kKernels;

}  // namespace cadre::kernels::avx512_bf16
