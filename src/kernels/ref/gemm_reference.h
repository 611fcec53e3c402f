#pragma once
// The slow twins of Gemm and RunExperts, for tests: one multiplication and one addition at a time, in rising
// k, as the portable kernels do (equal bits there); the others fuse or pair them (equal within rounding).
#include "kernels/gemm.h"
#include "kernels/grouped_gemm.h"

namespace cadre::kernels {

/// As Gemm. When `magnitude` is given ([m, w.n]) it receives the sums of |a * w|, the scale of the rounding
/// error.
void GemmReference(const GemmArgs& args, float* magnitude = nullptr);

/// As RunExperts, with std::exp.
void RunExpertsReference(const ExpertsArgs& args);

}  // namespace cadre::kernels
