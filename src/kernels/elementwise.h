#pragma once
// The row-wise operations between the matrix products. All arithmetic is f32; rows are independent: a row's
// result depends neither on the others nor on the threads. exp is accurate to 2 units in the last place on
// [-87.33, 88.37], 0 below and infinite above. Less than about 20 us of work stays on the calling thread.
#include <cstdint>

#include "kernels/device.h"
#include "kernels/pack.h"
#include "tensor/dtype.h"

namespace cadre::kernels {

struct RmsNormArgs {
  int64_t num_rows = 0, width = 0;
  int32_t num_heads = 1;     ///< each row is [num_heads, width], every head normed by itself
  const float* x = nullptr;  ///< [num_rows, num_heads * width]
  int64_t x_stride = 0;
  const float* weight = nullptr;  ///< [width]
  float eps = 1e-6f;
  void* out = nullptr;  ///< as x, of out_type; may be x itself when f32
  DType out_type = DType::kBf16;
  int64_t out_stride = 0;
  float* out_f32 = nullptr;  ///< the same values before rounding, without gaps between rows; or null
};
/// out = x / sqrt(mean(x^2) + eps) * weight.
void RmsNorm(const Device& device, const RmsNormArgs& args);

struct RopeArgs {
  int64_t num_rows = 0;
  int32_t num_heads = 0, head_dim = 0;
  float* x = nullptr;  ///< [num_rows, num_heads, head_dim], heads `head_dim` apart, in place
  int64_t x_stride = 0;
  int32_t rotary_begin = 0;    ///< first rotated column of a head
  int32_t rotary_dim = 0;      ///< rotated columns; even
  bool interleaved = false;    ///< pairs (2i, 2i+1) instead of (i, i + rotary_dim/2)
  const float* cos = nullptr;  ///< [num_rows, rotary_dim / 2]
  const float* sin = nullptr;
};
void Rope(const Device& device, const RopeArgs& args);

/// Rounds or copies f32 rows: out [num_rows, width] of out_type.
void ConvertRows(const Device& device, int64_t num_rows, int64_t width, const float* x, int64_t x_stride,
                 void* out, DType out_type, int64_t out_stride);

struct GatedArgs {
  int64_t num_rows = 0, inter = 0;
  const float* gate_up = nullptr;  ///< [num_rows, 2 * inter]: gate, then up
  int64_t gate_up_stride = 0;
  void* out = nullptr;  ///< [num_rows, inter] of out_type
  DType out_type = DType::kBf16;
  int64_t out_stride = 0;
};
/// out = silu(gate) * up, for dense feed-forward layers.
void SiluMul(const Device& device, const GatedArgs& args);

struct CombineArgs {
  int64_t num_rows = 0, width = 0;
  int32_t top_k = 0;
  const float* expert_rows = nullptr;  ///< [N, width]
  const int32_t* index = nullptr;      ///< [num_rows, top_k] row of expert_rows, or -1
  const float* weights = nullptr;      ///< [num_rows, top_k], or null where the rows are weighted already
  float* out = nullptr;                ///< [num_rows, width]
  int64_t out_stride = 0;
  bool accumulate = false;  ///< out += instead of out =
};
/// out[t] = sum over k, in rising k, of weights[t, k] * expert_rows[index[t, k]]. The sum is complete before
/// it is added to out.
void CombineRows(const Device& device, const CombineArgs& args);

/// Gathers embedding rows: out f32 [num_tokens, width] = table[ids[t]] * scale; table [vocab, width] of
/// `type` (kF32 or kBf16).
void GatherRows(const Device& device, int64_t num_tokens, const int32_t* ids, const void* table, DType type,
                int64_t width, float scale, float* out);

/// The same from a packed [vocab, width] matrix: tied embeddings need no second copy. A cache line for each
/// 4 bytes, so 16 times the table's traffic: 64 KiB a token at width 2048.
void GatherPackedRows(const Device& device, int64_t num_tokens, const int32_t* ids, const PackedMatrix& table,
                      float scale, float* out);

/// Index of the largest of [width] (the lowest on ties; NaN never wins; 0 if all are NaN).
int32_t ArgMax(const Device& device, const float* x, int64_t width);
/// out [width] = exp((x - maximum) * factor), within about 2 units in the last place; NaN stays NaN.
void ScaledExp(const Device& device, const float* x, int64_t width, float maximum, float factor, float* out);
/// The sum of those of x [width] that are >= least, in f64, in an order that depends on width alone. NaN is
/// left out.
double SumAtLeast(const Device& device, const float* x, int64_t width, float least);
/// Writes the indices of the same numbers, rising; returns how many. `index` has room for width.
int64_t SelectAtLeast(const Device& device, const float* x, int64_t width, float least, int32_t* index);
/// log(sum(exp(x))) over [width], f32 in, computed with a fixed order of sums in f64.
double LogSumExp(const Device& device, const float* x, int64_t width);

}  // namespace cadre::kernels
