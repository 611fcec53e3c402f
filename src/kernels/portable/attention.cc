#include "kernels/portable/simd.h"

#include "kernels/attention_templates.h"

namespace cadre::kernels::portable {

const AttentionKernels kAttentionKernels = {AttentionRun<Simd, WideProduct<Simd>>::Ops(2.0f),
                                            AttentionRun<Simd, F32Product<Simd>>::Ops(4.0f)};

}  // namespace cadre::kernels::portable
