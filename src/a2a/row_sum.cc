#include "a2a/row_sum.h"

#include <algorithm>

namespace cadre::a2a {
namespace {

constexpr int64_t kColumns = 512;  // a block's sum and the row pieces it reads stay in the first-level cache

void Copy(const float* __restrict from, int64_t n, float* __restrict to) {
  for (int64_t i = 0; i < n; ++i) to[i] = from[i];
}
void Add(const float* __restrict from, int64_t n, float* __restrict to) {
  for (int64_t i = 0; i < n; ++i) to[i] += from[i];
}

}  // namespace

void SumRow(const RowTerms& terms, int64_t width, float* out, bool accumulate) {
  alignas(64) float sum[kColumns];
  alignas(64) float own[kColumns];
  for (int64_t c = 0; c < width; c += kColumns) {
    const int64_t n = std::min(kColumns, width - c);
    bool empty = true;
    const auto take = [&](const float* from) {
      empty ? Copy(from, n, sum) : Add(from, n, sum);
      empty = false;
    };
    for (const float* partial : terms.before) take(partial + c);
    if (terms.own.size() == 1) {
      take(terms.own[0] + c);
    } else if (!terms.own.empty()) {
      Copy(terms.own[0] + c, n, own);
      for (const float* row : terms.own.subspan(1)) Add(row + c, n, own);
      take(own);
    }
    for (const float* partial : terms.after) take(partial + c);
    if (empty) std::fill(sum, sum + n, 0.0f);
    accumulate ? Add(sum, n, out + c) : Copy(sum, n, out + c);
  }
}

void ForRows(const kernels::Device& device, int64_t num_rows, int64_t bytes_per_row,
             sys::FunctionRef<void(int64_t)> fn) {
  // Below 32 KiB a share costs less than handing it to another thread (about 1 us).
  const int64_t rows_per_share = std::max<int64_t>(1, (32 << 10) / std::max<int64_t>(bytes_per_row, 1));
  const int64_t num_shares = (num_rows + rows_per_share - 1) / rows_per_share;
  const auto share = [&](int64_t s, int) {
    for (int64_t row = s * rows_per_share; row < std::min(num_rows, (s + 1) * rows_per_share); ++row) fn(row);
  };
  if (device.pool != nullptr) return device.pool->ForEach(num_shares, share);
  for (int64_t s = 0; s < num_shares; ++s) share(s, 0);
}

}  // namespace cadre::a2a
