
#include "kernels/portable/simd.h"

#include "kernels/attention_templates.h"
namespace cadre::kernels::avx512 {
const AttentionKernels kAttentionKernels = {
    AttentionRun<portable::Simd, WideProduct<portable::Simd>>::Ops(2.0f),
    AttentionRun<portable::Simd, F32Product<portable::Simd>>::Ops(4.0f)};
}
