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

void Scale(const float* __restrict from, float weight, int64_t n, float* __restrict to) {
  for (int64_t i = 0; i < n; ++i) to[i] = weight * from[i];
}
void AddScaled(const float* __restrict from, float weight, int64_t n, float* __restrict to) {
  for (int64_t i = 0; i < n; ++i) to[i] += weight * from[i];
}

// A block of columns of a growing sum; the first term is copied, not added to 0.
struct Block {
  int64_t n;
  bool empty = true;
  alignas(64) float sum[kColumns];

  void Take(const float* from) {
    empty ? Copy(from, n, sum) : Add(from, n, sum);
    empty = false;
  }
  void TakeScaled(const float* from, float weight) {
    empty ? Scale(from, weight, n, sum) : AddScaled(from, weight, n, sum);
    empty = false;
  }
  void Give(float* out, bool accumulate) {
    if (empty) std::fill(sum, sum + n, 0.0f);
    accumulate ? Add(sum, n, out) : Copy(sum, n, out);
  }
};

// Columns [c, c + block.n) of the terms.
void TakeTerms(const RowTerms& terms, int64_t c, Block& block) {
  for (const float* partial : terms.before) block.Take(partial + c);
  if (terms.own.size() == 1) {
    block.Take(terms.own[0] + c);
  } else if (!terms.own.empty()) {
    Block own{.n = block.n};
    for (const float* row : terms.own) own.Take(row + c);
    block.Take(own.sum);
  }
  for (const float* partial : terms.after) block.Take(partial + c);
}

// Columns [c, c + block.n) of a row of a type.
void TakeTyped(const std::byte* row, DType type, int64_t c, Block& block) {
  if (type == DType::kF32) return block.Take(reinterpret_cast<const float*>(row) + c);
  alignas(64) float values[kColumns];
  const auto* from = reinterpret_cast<const Bf16*>(row) + c;
  for (int64_t i = 0; i < block.n; ++i) values[i] = ToFloat(from[i]);
  block.Take(values);
}

}  // namespace

void SumRow(const RowTerms& terms, int64_t width, float* out, bool accumulate) {
  for (int64_t c = 0; c < width; c += kColumns) {
    Block block{.n = std::min(kColumns, width - c)};
    TakeTerms(terms, c, block);
    block.Give(out + c, accumulate);
  }
}

void SumRowByHost(std::span<const HostTerm> hosts, DType type, int64_t width, float* out, bool accumulate) {
  for (int64_t c = 0; c < width; c += kColumns) {
    Block total{.n = std::min(kColumns, width - c)};
    for (const HostTerm& host : hosts) {
      if (host.there != nullptr) {
        TakeTyped(host.there, type, c, total);
        continue;
      }
      Block sum{.n = total.n};
      TakeTerms(host.here, c, sum);
      if (!sum.empty) total.Take(sum.sum);
    }
    total.Give(out + c, accumulate);
  }
}

void SumRowTo(const RowTerms& terms, DType type, int64_t width, std::byte* out) {
  if (type == DType::kF32) return SumRow(terms, width, reinterpret_cast<float*>(out), false);
  for (int64_t c = 0; c < width; c += kColumns) {
    Block block{.n = std::min(kColumns, width - c)};
    TakeTerms(terms, c, block);
    if (block.empty) std::fill(block.sum, block.sum + block.n, 0.0f);
    auto* to = reinterpret_cast<Bf16*>(out) + c;
    for (int64_t i = 0; i < block.n; ++i) to[i] = ToBf16(block.sum[i]);
  }
}

void SumWeighted(std::span<const float> weights, const float* const* rows, int shards, int64_t width,
                 float* out, bool accumulate) {
  for (int64_t c = 0; c < width; c += kColumns) {
    Block block{.n = std::min(kColumns, width - c)};
    for (size_t i = 0; i < weights.size(); ++i) {
      const float* const* term = rows + i * static_cast<size_t>(shards);
      if (shards == 1) {
        block.TakeScaled(term[0] + c, weights[i]);
        continue;
      }
      Block whole{.n = block.n};
      for (int s = 0; s < shards; ++s) whole.Take(term[s] + c);
      block.TakeScaled(whole.sum, weights[i]);
    }
    block.Give(out + c, accumulate);
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
