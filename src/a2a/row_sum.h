#pragma once
// Sums of rows in a fixed order, f32: the arithmetic of every combine. Bound by memory, so plain loops serve.
#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/device.h"
#include "sys/threads.h"
#include "tensor/dtype.h"

namespace cadre::a2a {

/// The terms of one home row in a tree by rank: a partial sum per lower rank, this rank's own expert rows, a
/// partial sum per higher rank. All of [width].
struct RowTerms {
  std::span<const float* const> before;
  std::span<const float* const> own;  ///< summed among themselves first, in order
  std::span<const float* const> after;
};

/// out[width] = (accumulate: +=) ((before[0] + before[1]) + ... + (own[0] + own[1] + ...)) + after[0] + ...
/// No terms at all: 0. The sum is complete before it is added to out.
void SumRow(const RowTerms& terms, int64_t width, float* out, bool accumulate);

/// A host's share of a home row: the terms of its ranks, or their sum as it came from there.
struct HostTerm {
  RowTerms here = {};
  const std::byte* there = nullptr;  ///< [width] of the model's type
};

/// The same for several hosts: each one's terms are summed as above, then these sums in order. A host without
/// terms takes no part.
void SumRowByHost(std::span<const HostTerm> hosts, DType type, int64_t width, float* out, bool accumulate);
/// SumRow, then rounded to `type`: [width] of it.
void SumRowTo(const RowTerms& terms, DType type, int64_t width, std::byte* out);

/// out[width] = (accumulate: +=) weights[0] * r[0] + weights[1] * r[1] + ..., where r[i] is the sum of
/// rows[i * shards .. (i + 1) * shards) in order. No terms: 0.
void SumWeighted(std::span<const float> weights, const float* const* rows, int shards, int64_t width,
                 float* out, bool accumulate);

/// Calls fn(row) for every row, in shares over the device's threads; `bytes_per_row` decides how many rows
/// make it worth waking a thread.
void ForRows(const kernels::Device& device, int64_t num_rows, int64_t bytes_per_row,
             sys::FunctionRef<void(int64_t row)> fn);

}  // namespace cadre::a2a
