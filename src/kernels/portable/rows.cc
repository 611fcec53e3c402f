#include "kernels/portable/simd.h"

#include "kernels/row_templates.h"

namespace cadre::kernels::portable {

const RowKernels kRowKernels = RowOps<Simd>::kKernels;

}  // namespace cadre::kernels::portable
