#pragma once
// Where partial results of tensor-parallel ranks become one.
#include "base/error.h"
#include "kernels/pack.h"
#include "nn/adapter.h"
#include "nn/step_context.h"
#include "tensor/arena.h"

namespace cadre::nn {

/// residual [T, hidden] += product of rows `a` [T, w.k] with `w` (+ bias), and what adapters add at `place`,
/// summed over the tensor-parallel ranks.
Status AddProduct(const StepContext& context, const void* a, const kernels::PackedMatrix& w,
                  const float* bias, AdapterPlace place, float* residual, Arena& arena);

/// residual [T, width] += partial [T, width], summed over the tensor-parallel ranks. `partial` is
/// overwritten.
Status AddPartial(const StepContext& context, float* partial, int64_t width, float* residual);

}  // namespace cadre::nn
