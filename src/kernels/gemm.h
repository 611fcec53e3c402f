#pragma once
// C = A * W^T for one packed weight and any number of rows.
//
// A row's result does not depend on the rows beside it: every output is one chain of sums in rising k (pairs
// of k for bf16; fp8: one chain for each scale, and those in rising order), whatever the blocking. That is
// what makes an answer independent of its batch.
#include <cstdint>
#include <span>

#include "kernels/device.h"
#include "kernels/pack.h"

namespace cadre::kernels {

struct GemmArgs {
  int64_t m = 0;            ///< rows of A; 0 is allowed
  const void* a = nullptr;  ///< [m, w.k] of RowTypeOf(w.format)
  int64_t a_stride = 0;     ///< elements between rows
  PackedMatrix w;
  const float* bias = nullptr;  ///< [w.n] or null
  void* c = nullptr;            ///< [m, w.n]
  DType c_type = DType::kF32;   ///< kF32 or kBf16 (rounded once)
  int64_t c_stride = 0;
  bool accumulate = false;  ///< c += (only for kF32): the residual stream is added to in place
};

/// Runs on all threads of the device. Sums in f32.
void Gemm(const Device& device, const GemmArgs& args);

/// Several products with one fork and join, as the heads of latent attention need; their outputs must not
/// overlap.
void GemmBatch(const Device& device, std::span<const GemmArgs> batch);

}  // namespace cadre::kernels
