#include "kernels/portable/simd.h"
#include "kernels/row_templates.h"
namespace cadre::kernels::avx2 {
const RowKernels kRowKernels = RowOps<portable::Simd>::kKernels;
}
