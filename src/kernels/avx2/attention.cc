#include "kernels/attention_templates.h"
#include "kernels/avx2/simd.h"

namespace cadre::kernels::avx2 {

const AttentionKernels kAttentionKernels = {AttentionRun<Simd, WideProduct<Simd>>::Ops(15.0f),
                                            AttentionRun<Simd, F32Product<Simd>>::Ops(25.0f)};

}  // namespace cadre::kernels::avx2
