#pragma once
// The row-wise operations and the router the slow and obvious way, in double.
#include <cstdint>
#include <vector>

#include "kernels/topk.h"

namespace cadre::kernels::ref {

std::vector<double> RmsNorm(const float* x, const float* weight, int64_t width, double eps);
/// One head, in place.
void Rope(double* x, int dim, bool interleaved, const float* cos, const float* sin);
double Silu(double x);

struct Routed {
  std::vector<int32_t> experts;
  std::vector<double> weights;
};
/// One row. Written after transformers' text, with full sorts.
Routed Route(const TopKArgs& args, const float* logits);

}  // namespace cadre::kernels::ref
