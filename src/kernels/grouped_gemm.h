#pragma once
// The routed experts of one layer: gathered rows -> gate and up -> activation -> down, over all experts at
// once.
#include <cstdint>
#include <span>

#include "kernels/device.h"
#include "kernels/pack.h"

namespace cadre::kernels {

enum class Activation : uint8_t {
  kSilu,           ///< silu(gate) * up
  kClampedSwiglu,  ///< gate = min(gate, limit), up = clamp(up, +-limit): gate * sigmoid(alpha * gate) * (up +
                   ///< 1)
};

/// One expert. `gate_up` holds panels of 16 rows in turn: 16 gate rows, then the 16 up rows with the same
/// indices, so gate_up.n = 2 * RoundUp(inter, 16) (the rows that pad are zero) and one task computes both.
struct ExpertWeights {
  PackedMatrix gate_up;                 ///< k = hidden
  PackedMatrix down;                    ///< n = hidden, k = inter
  const float* gate_up_bias = nullptr;  ///< [gate_up.n] in the same order, or null
  const float* down_bias = nullptr;     ///< [hidden] or null
};

struct ExpertsArgs {
  int64_t hidden = 0, inter = 0;
  DType act_type = DType::kBf16;  ///< of the rows and of the intermediate: RowTypeOf the weights' format
  std::span<const ExpertWeights> experts;  ///< [S], all of one format
  const int32_t* offsets =
      nullptr;  ///< [S + 1] rows of expert s are [offsets[s], offsets[s+1]); offsets[S] = N
  const void* const* rows =
      nullptr;  ///< [N] address of each row, [hidden] of act_type; need not be contiguous
  const float* row_weights = nullptr;  ///< [N]: the result row is multiplied with it (f32), or null
  Activation activation = Activation::kSilu;
  float swiglu_alpha = 1.702f, swiglu_limit = 7.0f;  ///< only for kClampedSwiglu
  void* inter_rows = nullptr;                        ///< scratch [N, RoundUp(inter, 2)] of act_type
  float* out = nullptr;                              ///< [N, hidden] f32
  int64_t out_stride = 0;
};

/// Runs on all threads of the device, with one join; experts without rows cost nothing. The row count of each
/// expert picks its own blocking. A row's result does not depend on the other rows.
void RunExperts(const Device& device, const ExpertsArgs& args);

}  // namespace cadre::kernels
