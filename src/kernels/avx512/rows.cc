#include "kernels/avx512/simd.h"
#include "kernels/row_templates.h"

namespace cadre::kernels::avx512 {

const RowKernels kRowKernels = RowOps<Simd>::kKernels;

}  // namespace cadre::kernels::avx512
