#include "nn/adapter.h"

#include <algorithm>
#include <cstring>

#include "kernels/gemm.h"

namespace cadre::nn {
namespace {

constexpr int64_t kRowsAtOnce = 256;  // bounds the scratch; rows do not depend on each other
constexpr int64_t kMaxParts = 3;      // q, k and v

const void* RowAt(const void* x, int64_t row, int64_t stride, DType type) {
  return static_cast<const std::byte*>(x) + row * stride * DTypeBytes(type);
}

// The rows of a piece one behind the other: where they lie, or copied together.
const void* Together(const LowRank& low_rank, std::span<const int32_t> rows, const void* x, int64_t x_stride,
                     int64_t& stride, Arena& arena) {
  const DType type = kernels::RowTypeOf(low_rank.a.format);
  if (rows.back() - rows.front() + 1 == std::ssize(rows)) {  // rows ascend
    stride = x_stride;
    return RowAt(x, rows.front(), x_stride, type);
  }
  stride = low_rank.a.k;
  const int64_t row_bytes = stride * DTypeBytes(type);
  auto* const copy = static_cast<std::byte*>(arena.TakeBytes(std::ssize(rows) * row_bytes));
  for (size_t i = 0; i < rows.size(); ++i) {
    std::memcpy(copy + static_cast<int64_t>(i) * row_bytes, RowAt(x, rows[i], x_stride, type),
                static_cast<size_t>(row_bytes));
  }
  return copy;
}

void AddPiece(const StepContext& context, const LowRank& low_rank, std::span<const int32_t> rows,
              const void* x, int64_t x_stride, float* y, int64_t y_stride, Arena& arena) {
  const ArenaScope scope(arena);
  const int64_t num_rows = std::ssize(rows), ranks = low_rank.a.n;
  int64_t stride = 0;
  const void* const in = Together(low_rank, rows, x, x_stride, stride, arena);
  float* const reduced = arena.Take<float>(num_rows * ranks);
  kernels::Gemm(
      context.device,
      {.m = num_rows, .a = in, .a_stride = stride, .w = low_rank.a, .c = reduced, .c_stride = ranks});
  for (const LowRankPart& part : low_rank.parts) {
    const ArenaScope part_scope(arena);
    float* const sums = arena.Take<float>(num_rows * part.b.n);
    kernels::Gemm(context.device, {.m = num_rows,
                                   .a = reduced + part.first_rank,
                                   .a_stride = ranks,
                                   .w = part.b,
                                   .c = sums,
                                   .c_stride = part.b.n});
    for (int64_t i = 0; i < num_rows; ++i) {
      float* const to = y + rows[static_cast<size_t>(i)] * y_stride + part.first_output;
      const float* const from = sums + i * part.b.n;
      for (int64_t n = 0; n < part.b.n; ++n) to[n] += from[n];
    }
  }
}

}  // namespace

void AddLowRank(const StepContext& context, AdapterPlace place, const void* x, int64_t x_stride, float* y,
                int64_t y_stride, Arena& arena) {
  for (const AdapterRows& rows : context.adapters) {
    const LowRank& low_rank = rows.adapter->layers[static_cast<size_t>(place.layer)].*place.product;
    if (low_rank.parts.empty()) continue;
    for (std::span<const int32_t> left = rows.rows; !left.empty();) {
      const size_t count = std::min(left.size(), static_cast<size_t>(kRowsAtOnce));
      AddPiece(context, low_rank, left.first(count), x, x_stride, y, y_stride, arena);
      left = left.subspan(count);
    }
  }
}

int64_t LowRankScratchBytes(int64_t num_tokens, int64_t inputs, int64_t outputs, int64_t max_rank) {
  if (max_rank == 0) return 0;
  constexpr int64_t kTakes = 3;  // each is rounded up to a cache line
  return std::min(num_tokens, kRowsAtOnce) * (inputs + outputs + kMaxParts * max_rank) *
             static_cast<int64_t>(sizeof(float)) +
         kTakes * 64;
}

}  // namespace cadre::nn
