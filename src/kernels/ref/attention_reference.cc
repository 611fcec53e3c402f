#include "kernels/ref/attention_reference.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace cadre::kernels::ref {

AttentionRowResult Attention(const AttentionRow& row) {
  std::vector<double> logits;
  double top =
      row.sink != nullptr ? static_cast<double>(*row.sink) : -std::numeric_limits<double>::infinity();
  for (int64_t t = row.begin; t < row.end; ++t) {
    double sum = 0;
    for (int c = 0; c < row.k_dim; ++c) {
      sum += static_cast<double>(row.q[c]) * static_cast<double>(row.k[t * row.k_stride + c]);
    }
    logits.push_back(sum * row.scale);
    top = std::max(top, logits.back());
  }
  double total = row.sink != nullptr ? std::exp(static_cast<double>(*row.sink) - top) : 0.0;
  for (double& x : logits) total += x = std::exp(x - top);
  AttentionRowResult result;
  result.out.resize(static_cast<size_t>(row.v_dim));
  result.magnitude.resize(static_cast<size_t>(row.v_dim));
  for (int64_t t = row.begin; t < row.end; ++t) {
    const double p = logits[static_cast<size_t>(t - row.begin)] / total;
    for (int c = 0; c < row.v_dim; ++c) {
      const double v = static_cast<double>(row.v[t * row.v_stride + c]);
      result.out[static_cast<size_t>(c)] += p * v;
      result.magnitude[static_cast<size_t>(c)] += p * std::abs(v);
    }
  }
  return result;
}

}  // namespace cadre::kernels::ref
