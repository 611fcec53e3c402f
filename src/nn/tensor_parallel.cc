#include "nn/tensor_parallel.h"

#include "kernels/gemm.h"

namespace cadre::nn {

Status AddProduct(const StepContext& context, const void* a, const kernels::PackedMatrix& w,
                  const float* bias, AdapterPlace place, float* residual, Arena& arena) {
  kernels::GemmArgs gemm{.m = context.batch.num_tokens(),
                         .a = a,
                         .a_stride = w.k,
                         .w = w,
                         .bias = bias,
                         .c = residual,
                         .c_stride = w.n,
                         .accumulate = true};
  if (context.tensor_parallel == nullptr) {
    kernels::Gemm(context.device, gemm);
    AddLowRank(context, place, a, w.k, residual, w.n, arena);
    return {};
  }
  const ArenaScope scope(arena);
  float* partial = arena.Take<float>(gemm.m * w.n);
  gemm.c = partial;
  gemm.accumulate = false;
  kernels::Gemm(context.device, gemm);
  AddLowRank(context, place, a, w.k, partial, w.n, arena);
  return AddPartial(context, partial, w.n, residual);
}

Status AddPartial(const StepContext& context, float* partial, int64_t width, float* residual) {
  const int64_t count = context.batch.num_tokens() * width;
  if (context.tensor_parallel != nullptr) CADRE_TRY(context.tensor_parallel->AllReduceSum(partial, count));
  for (int64_t i = 0; i < count; ++i) residual[i] += partial[i];
  return {};
}

}  // namespace cadre::nn
