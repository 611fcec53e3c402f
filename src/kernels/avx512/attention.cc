#include "kernels/attention_templates.h"
#include "kernels/avx512/simd.h"

namespace cadre::kernels::avx512 {

const AttentionKernels kAttentionKernels = {AttentionRun<Simd, WideProduct<Simd>>::Ops(25.0f),
                                            AttentionRun<Simd, F32Product<Simd>>::Ops(40.0f)};

}  // namespace cadre::kernels::avx512
