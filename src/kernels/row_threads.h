#pragma once
// Rows over threads, and only where that pays.
#include <algorithm>
#include <cstdint>

#include "kernels/device.h"
#include "kernels/row_kernels.h"

namespace cadre::kernels {

const RowKernels& RowKernelsFor(Isa isa);

/// Rough time of one column of a simple operation: 4 to 8 bytes from the second-level cache.
constexpr double kColumnNs = 0.15;

/// Calls fn(begin, end) for ranges that cover num_rows. Waking and joining the threads costs a few
/// microseconds, so less than 20 us of work stays on the caller.
template <typename Fn>
void ForRows(const Device& device, int64_t num_rows, double row_ns, Fn&& fn) {
  if (num_rows <= 0) return;
  const double ns = static_cast<double>(num_rows) * row_ns;
  const int num_threads = device.pool == nullptr ? 1 : device.pool->num_threads();
  if (num_threads == 1 || num_rows == 1 || ns < 20'000) return fn(int64_t{0}, num_rows);
  const int64_t num_tasks = std::min<int64_t>(num_rows, num_threads * 4);
  device.pool->ForEach(num_tasks, [&](int64_t task, int) {
    fn(num_rows * task / num_tasks, num_rows * (task + 1) / num_tasks);
  });
}

}  // namespace cadre::kernels
