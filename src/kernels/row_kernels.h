#pragma once
// What an instruction set brings to the row-wise operations: functions of one row. Plain declarations only,
// because files compiled for wide instruction sets see this header.
//
// Sums over a row run in 64 interleaved chains (column c in chain c mod 64) added up in a fixed tree, so they
// depend on the row alone.
#include <cstdint>

namespace cadre::kernels {

struct RowKernels {
  /// out = x / sqrt(mean(x^2) + eps) * weight as bf16 or f32 (x itself allowed), and as f32 into out_f32
  /// unless null.
  void (*rms_norm)(const float* x, const float* weight, int64_t width, float eps, void* out, bool out_bf16,
                   float* out_f32);
  /// Rotates `dim` columns of num_heads heads, `head_dim` apart; x is at the first rotated column.
  void (*rope)(float* x, int num_heads, int head_dim, int dim, bool interleaved, const float* cos,
               const float* sin);
  void (*to_bf16)(const float* x, int64_t n, uint16_t* out);
  void (*scale)(const void* x, bool x_bf16, int64_t n, float factor, float* out);
  void (*silu_mul)(const float* gate, const float* up, int64_t n, void* out, bool out_bf16);
  void (*combine)(const float* rows, int64_t width, const int32_t* index, const float* weights, int top_k,
                  float* out, bool accumulate);
  float (*max)(const float* x, int64_t n);  ///< NaN is passed over; -infinity if nothing is left
  int64_t (*find)(const float* x, int64_t n, float value);      ///< first index, or -1
  double (*sum_exp)(const float* x, int64_t n, float maximum);  ///< of exp(x - maximum), summed in f64
  void (*softmax)(const float* x, int64_t n, float* out);
  void (*sigmoid)(const float* x, int64_t n, float* out);
  /// out = exp((x - maximum) * factor)
  void (*scaled_exp)(const float* x, int64_t n, float maximum, float factor, float* out);
  double (*sum_at_least)(const float* x, int64_t n, float least);  ///< of those >= least, summed in f64
  /// Indices, rising, of those > below; how many.
  int64_t (*select_above)(const float* x, int64_t n, float below, int32_t* index);
};

namespace portable {
extern const RowKernels kRowKernels;
}
namespace avx2 {
extern const RowKernels kRowKernels;
}
namespace avx512 {
extern const RowKernels kRowKernels;
}
namespace avx512_bf16 {
extern const RowKernels kRowKernels;
}

}  // namespace cadre::kernels
