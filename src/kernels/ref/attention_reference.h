#pragma once
// Attention the slow and obvious way, in double: what the kernels are measured against.
#include <cstdint>
#include <vector>

namespace cadre::kernels::ref {

/// One row of one head over positions [begin, end). k and v: rows of positions, `k_stride` and `v_stride`
/// apart.
struct AttentionRow {
  const float* q = nullptr;
  const float* k = nullptr;
  int64_t k_stride = 0;
  const float* v = nullptr;
  int64_t v_stride = 0;
  int k_dim = 0, v_dim = 0;
  int64_t begin = 0, end = 0;
  double scale = 1;
  const float* sink = nullptr;
};
struct AttentionRowResult {
  std::vector<double> out;        ///< [v_dim]
  std::vector<double> magnitude;  ///< [v_dim] sum of p * |v|: what an error is relative to
};
AttentionRowResult Attention(const AttentionRow& row);

}  // namespace cadre::kernels::ref
