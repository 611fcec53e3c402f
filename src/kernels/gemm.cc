#include "kernels/gemm.h"

#include <atomic>

#include "base/check.h"
#include "kernels/tile_worker.h"

namespace cadre::kernels {
namespace {

struct Plan {
  int64_t segment_rows = 0, num_segments = 0;
  int64_t panels_per_tile = 1, num_tiles = 0;  // tiles side by side
  int64_t ranges = 1;                          // tasks per segment
  bool serial = true;
};

Plan MakePlan(const WeightKernels& kernels, const GemmArgs& args, int num_threads) {
  Plan plan;
  const int64_t most = SegmentRows(kernels, args.w.k);
  plan.num_segments = (args.m + most - 1) / most;
  plan.segment_rows = (args.m + plan.num_segments - 1) / plan.num_segments;
  plan.panels_per_tile = PanelsPerTile(kernels, plan.segment_rows);
  const int64_t num_panels = RoundUp(args.w.n, kPanelRows) / kPanelRows;
  plan.num_tiles = (num_panels + plan.panels_per_tile - 1) / plan.panels_per_tile;
  const double tile_ns =
      PanelCost(kernels, plan.segment_rows, args.w.k) * static_cast<double>(plan.panels_per_tile);
  const Cutting cutting(tile_ns * static_cast<double>(plan.num_tiles * plan.num_segments), num_threads);
  plan.serial = cutting.serial;
  plan.ranges = cutting.NumTasks(plan.num_tiles, tile_ns, 1);
  return plan;
}

void RunTask(const GemmKernels& kernels, const GemmArgs& args, const Plan& plan, int64_t task,
             TileWorker& worker) {
  const int64_t segment = task / plan.ranges, range = task % plan.ranges;
  const int64_t row_begin = segment * plan.segment_rows;
  const int64_t num_rows = std::min(plan.segment_rows, args.m - row_begin);
  const int64_t panel_begin = plan.num_tiles * range / plan.ranges * plan.panels_per_tile;
  const int64_t panel_end = std::min(RoundUp(args.w.n, kPanelRows) / kPanelRows,
                                     plan.num_tiles * (range + 1) / plan.ranges * plan.panels_per_tile);
  const int64_t c_bytes = DTypeBytes(args.c_type);
  const RowView rows{.base = static_cast<const std::byte*>(args.a),
                     .stride_bytes = args.a_stride * (args.w.format == PackFormat::kBf16 ? 2 : 4)};
  worker.SetRows(segment, rows, row_begin, num_rows, args.w.k);
  worker.Multiply(args.w, panel_begin, panel_end, plan.panels_per_tile,
                  [&](int64_t row, int tile_rows, int64_t panel, int64_t num_panels, const float* tile) {
                    const int64_t col = panel * kPanelRows;
                    kernels.store({.tile = tile,
                                   .rows = tile_rows,
                                   .cols = std::min(num_panels * kPanelRows, args.w.n - col),
                                   .bias = args.bias != nullptr ? args.bias + col : nullptr,
                                   .accumulate = args.accumulate,
                                   .bf16 = args.c_type == DType::kBf16,
                                   .c = static_cast<std::byte*>(args.c) +
                                        ((row_begin + row) * args.c_stride + col) * c_bytes,
                                   .c_stride = args.c_stride});
                  });
}

}  // namespace

void Gemm(const Device& device, const GemmArgs& args) {
  if (args.m <= 0 || args.w.n <= 0) return;
  CADRE_CHECK(args.c_type == DType::kF32 || (args.c_type == DType::kBf16 && !args.accumulate));
  const GemmKernels& kernels = GemmKernelsFor(device.isa);
  const WeightKernels& weight_kernels = KernelsFor(kernels, args.w.format);
  const Plan plan = MakePlan(weight_kernels, args, device.pool->num_threads());
  const int64_t num_tasks = plan.num_segments * plan.ranges;
  if (plan.serial || num_tasks == 1) {
    TileWorker worker(weight_kernels);
    for (int64_t task = 0; task < num_tasks; ++task) RunTask(kernels, args, plan, task, worker);
    return;
  }
  alignas(64) std::atomic<int64_t> next{0};
  device.pool->Run([&](int) {
    TileWorker worker(weight_kernels);
    for (int64_t task = next.fetch_add(1, std::memory_order_relaxed); task < num_tasks;
         task = next.fetch_add(1, std::memory_order_relaxed)) {
      RunTask(kernels, args, plan, task, worker);
    }
  });
}

}  // namespace cadre::kernels
