#include "kernels/avx2/simd.h"
#include "kernels/row_templates.h"

namespace cadre::kernels::avx2 {

const RowKernels kRowKernels = RowOps<Simd>::kKernels;

}  // namespace cadre::kernels::avx2
