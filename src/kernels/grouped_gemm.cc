// One fork and one join for all experts of a layer. The work is a list of tasks that free threads take in
// order: first (segment, range of gate and up panels), then (segment, range of down panels), where a segment
// is some rows of one expert. A down task waits until the gate_up tasks of its segment are done. As all of
// those were taken before the first down task, it waits for running tasks at most, and for the last segments
// only.
#include "kernels/grouped_gemm.h"

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "base/check.h"
#include "kernels/tile_worker.h"
#include "sys/futex.h"

namespace cadre::kernels {
namespace {

struct Segment {
  int32_t expert = 0, row_begin = 0, rows = 0;
  int64_t panels_per_tile[2] = {1, 1};  // of gate_up, of down
};

struct Task {
  int32_t segment = 0, panel_begin = 0, panel_end = 0;
};

// Lives as long as the calling thread, so that a step allocates nothing.
struct Workspace {
  std::vector<Segment> segments;
  std::vector<Task> tasks;
  size_t first_down = 0;
  std::unique_ptr<std::atomic<int32_t>[]> left;  // gate_up tasks of each segment
  size_t num_left = 0;
};

int64_t NumPanels(const PackedMatrix& w) {
  return RoundUp(w.n, kPanelRows) / kPanelRows;
}

class ExpertsRun {
 public:
  ExpertsRun(const Device& device, const ExpertsArgs& args, Workspace& space)
      : device_(device),
        args_(args),
        kernels_(GemmKernelsFor(device.isa)),
        format_(args.act_type == DType::kBf16 ? PackFormat::kBf16 : PackFormat::kF32),
        weight_kernels_(KernelsFor(kernels_, format_)),
        space_(space),
        inter_stride_(RoundUp(args.inter, 2)) {}

  void Run() {
    MakeSegments();
    if (space_.segments.empty()) return;
    const bool serial = MakeTasks();
    const size_t num_tasks = space_.tasks.size();
    if (serial) {
      TileWorker worker(weight_kernels_);
      for (size_t task = 0; task < num_tasks; ++task) RunTask(task, worker);
      return;
    }
    alignas(64) std::atomic<size_t> next{0};
    device_.pool->Run([&](int) {
      TileWorker worker(weight_kernels_);
      for (size_t task = next.fetch_add(1, std::memory_order_relaxed); task < num_tasks;
           task = next.fetch_add(1, std::memory_order_relaxed)) {
        RunTask(task, worker);
      }
    });
  }

 private:
  void MakeSegments() {
    space_.segments.clear();
    const int64_t most =
        std::min(SegmentRows(weight_kernels_, args_.hidden), SegmentRows(weight_kernels_, args_.inter));
    for (size_t e = 0; e < args_.experts.size(); ++e) {
      const int64_t begin = args_.offsets[e], rows = args_.offsets[e + 1] - begin;
      if (rows <= 0) continue;
      const ExpertWeights& expert = args_.experts[e];
      CADRE_CHECK(expert.gate_up.format == format_ && expert.down.format == format_);
      CADRE_CHECK(expert.gate_up.k == args_.hidden &&
                  expert.gate_up.n == 2 * RoundUp(args_.inter, kPanelRows));
      CADRE_CHECK(expert.down.k == args_.inter && expert.down.n == args_.hidden);
      const int64_t count = (rows + most - 1) / most;
      for (int64_t i = 0; i < count; ++i) {
        Segment segment;
        segment.expert = static_cast<int32_t>(e);
        segment.row_begin = static_cast<int32_t>(begin + rows * i / count);
        segment.rows = static_cast<int32_t>(begin + rows * (i + 1) / count - segment.row_begin);
        // A tile of gate_up holds whole pairs, even where a micro kernel takes one panel at a time.
        const int64_t panels = PanelsPerTile(weight_kernels_, segment.rows);
        segment.panels_per_tile[0] = std::max<int64_t>(2, panels);
        segment.panels_per_tile[1] = panels;
        space_.segments.push_back(segment);
      }
    }
  }

  // Returns whether the caller should do it all.
  bool MakeTasks() {
    double total_ns = 0;
    for (const Segment& segment : space_.segments) {
      const ExpertWeights& expert = args_.experts[static_cast<size_t>(segment.expert)];
      total_ns += PanelCost(weight_kernels_, segment.rows, args_.hidden) *
                  static_cast<double>(NumPanels(expert.gate_up));
      total_ns +=
          PanelCost(weight_kernels_, segment.rows, args_.inter) * static_cast<double>(NumPanels(expert.down));
    }
    const Cutting cutting(total_ns, device_.pool->num_threads());
    const size_t num_segments = space_.segments.size();
    if (space_.num_left < num_segments) {
      space_.num_left = num_segments * 2;
      space_.left = std::make_unique<std::atomic<int32_t>[]>(space_.num_left);
    }
    space_.tasks.clear();
    for (const bool down : {false, true}) {
      if (down) space_.first_down = space_.tasks.size();
      for (size_t s = 0; s < num_segments; ++s) {
        const int64_t count = AddTasks(cutting, s, down);
        if (!down) space_.left[s].store(static_cast<int32_t>(count), std::memory_order_relaxed);
      }
    }
    return cutting.serial;
  }

  int64_t AddTasks(const Cutting& cutting, size_t segment_idx, bool down) {
    const Segment& segment = space_.segments[segment_idx];
    const ExpertWeights& expert = args_.experts[static_cast<size_t>(segment.expert)];
    const PackedMatrix& w = down ? expert.down : expert.gate_up;
    const int64_t per_tile = segment.panels_per_tile[down ? 1 : 0], num_panels = NumPanels(w);
    const int64_t tiles = (num_panels + per_tile - 1) / per_tile;
    const double tile_ns = PanelCost(weight_kernels_, segment.rows, w.k) * static_cast<double>(per_tile);
    const int64_t count = cutting.NumTasks(tiles, tile_ns, 1);
    for (int64_t i = 0; i < count; ++i) {
      space_.tasks.push_back(
          {.segment = static_cast<int32_t>(segment_idx),
           .panel_begin = static_cast<int32_t>(tiles * i / count * per_tile),
           .panel_end = static_cast<int32_t>(std::min(num_panels, tiles * (i + 1) / count * per_tile))});
    }
    return count;
  }

  void RunTask(size_t task_idx, TileWorker& worker) const {
    const Task& task = space_.tasks[task_idx];
    const Segment& segment = space_.segments[static_cast<size_t>(task.segment)];
    const ExpertWeights& expert = args_.experts[static_cast<size_t>(segment.expert)];
    std::atomic<int32_t>& left = space_.left[static_cast<size_t>(task.segment)];
    if (task_idx < space_.first_down) {
      RunGateUp(task, segment, expert, worker);
      left.fetch_sub(1, std::memory_order_release);  // partner: the acquire below
    } else {
      // Whoever holds a task of this segment is running; where threads share a CPU, let it.
      for (int spins = 0; left.load(std::memory_order_acquire) != 0; ++spins) {
        if (spins < 2000) {
          sys::SpinPause();
        } else {
          std::this_thread::yield();
        }
      }
      RunDown(task, segment, expert, worker);
    }
  }

  std::byte* InterRow(int64_t row) const {
    return static_cast<std::byte*>(args_.inter_rows) + row * inter_stride_ * DTypeBytes(args_.act_type);
  }

  void RunGateUp(const Task& task, const Segment& segment, const ExpertWeights& expert,
                 TileWorker& worker) const {
    worker.SetRows(int64_t{task.segment} * 2, {.list = args_.rows}, segment.row_begin, segment.rows,
                   args_.hidden);
    worker.Multiply(
        expert.gate_up, task.panel_begin, task.panel_end, segment.panels_per_tile[0],
        [&](int64_t row, int rows, int64_t panel, int64_t num_panels, const float* tile) {
          const int64_t col = panel / 2 * kPanelRows;
          kernels_.activate(
              {.tile = tile,
               .rows = rows,
               .cols = std::min(num_panels / 2 * kPanelRows, args_.inter - col),
               .bias = expert.gate_up_bias != nullptr ? expert.gate_up_bias + panel * kPanelRows : nullptr,
               .clamped_swiglu = args_.activation == Activation::kClampedSwiglu,
               .alpha = args_.swiglu_alpha,
               .limit = args_.swiglu_limit,
               .bf16 = args_.act_type == DType::kBf16,
               .out = InterRow(segment.row_begin + row) + col * DTypeBytes(args_.act_type),
               .out_stride = inter_stride_});
        });
  }

  void RunDown(const Task& task, const Segment& segment, const ExpertWeights& expert,
               TileWorker& worker) const {
    const RowView rows{.base = InterRow(0), .stride_bytes = inter_stride_ * DTypeBytes(args_.act_type)};
    worker.SetRows(int64_t{task.segment} * 2 + 1, rows, segment.row_begin, segment.rows, args_.inter);
    worker.Multiply(
        expert.down, task.panel_begin, task.panel_end, segment.panels_per_tile[1],
        [&](int64_t row, int num_rows, int64_t panel, int64_t num_panels, const float* tile) {
          const int64_t col = panel * kPanelRows, first = segment.row_begin + row;
          kernels_.store({.tile = tile,
                          .rows = num_rows,
                          .cols = std::min(num_panels * kPanelRows, args_.hidden - col),
                          .bias = expert.down_bias != nullptr ? expert.down_bias + col : nullptr,
                          .row_weights = args_.row_weights != nullptr ? args_.row_weights + first : nullptr,
                          .c = args_.out + first * args_.out_stride + col,
                          .c_stride = args_.out_stride});
        });
  }

  const Device& device_;
  const ExpertsArgs& args_;
  const GemmKernels& kernels_;
  const PackFormat format_;
  const WeightKernels& weight_kernels_;
  Workspace& space_;
  const int64_t inter_stride_;
};

}  // namespace

void RunExperts(const Device& device, const ExpertsArgs& args) {
  CADRE_CHECK(args.act_type == DType::kBf16 || args.act_type == DType::kF32);
  thread_local Workspace workspace;
  ExpertsRun(device, args, workspace).Run();
}

}  // namespace cadre::kernels
