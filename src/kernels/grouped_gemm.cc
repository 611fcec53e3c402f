// One fork and one join for all experts of a layer. The work is a line of stages: the gate_up products of all
// segments (some rows of one expert each), then their down products. Free threads eat it from the front. A
// down stage begins when the tiles of its gate_up stage are done; as all of those were taken before the first
// down tile is, a thread waits for running work at most, and only where the experts with rows are few.
#include "kernels/grouped_gemm.h"

#include <memory>
#include <thread>

#include "base/check.h"
#include "kernels/tile_work.h"
#include "kernels/tile_worker.h"
#include "sys/futex.h"

namespace cadre::kernels {
namespace {

struct Segment {
  int32_t expert = 0, row_begin = 0, rows = 0;
  int32_t gate_up_per_tile = 2, down_per_tile = 1;  // panels
};

// Lives as long as the calling thread, so that a step allocates nothing.
struct Workspace {
  std::vector<Segment> segments;
  TileWork work;                                 // stages: gate_up of each segment, then down of each segment
  std::unique_ptr<std::atomic<int64_t>[]> left;  // gate_up tiles of each segment that are not done
  size_t num_left = 0;
};

int64_t NumPanels(const PackedMatrix& w) {
  return RoundUp(w.n, kPanelRows) / kPanelRows;
}

class ExpertsRun {
 public:
  ExpertsRun(const Device& device, const ExpertsArgs& args, Workspace& space)
      : args_(args),
        kernels_(GemmKernelsFor(device.isa)),
        format_(args.experts.empty() ? PackFormat::kBf16 : args.experts.front().gate_up.format),
        weight_kernels_(KernelsFor(kernels_, format_)),
        space_(space),
        act_bytes_(DTypeBytes(args.act_type)),
        inter_stride_(RoundUp(args.inter, 2)) {}

  void Run(sys::ThreadPool* pool) {
    MakeSegments();
    if (space_.segments.empty()) return;
    MakeStages();
    const int num_threads = pool == nullptr ? 1 : pool->num_threads();
    if (space_.work.WorthSharing(num_threads)) {
      pool->Run([&](int) { Eat(num_threads); });
    } else {
      Eat(1);
    }
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
        const int64_t row = begin + rows * i / count, row_end = begin + rows * (i + 1) / count;
        // A tile of gate_up holds whole pairs, even where a micro kernel takes one panel at a time.
        const auto per_tile = static_cast<int32_t>(PanelsPerTile(weight_kernels_, row_end - row));
        space_.segments.push_back({.expert = static_cast<int32_t>(e),
                                   .row_begin = static_cast<int32_t>(row),
                                   .rows = static_cast<int32_t>(row_end - row),
                                   .gate_up_per_tile = std::max(2, per_tile),
                                   .down_per_tile = per_tile});
      }
    }
  }

  void MakeStages() {
    const size_t num_segments = space_.segments.size();
    if (space_.num_left < num_segments) {
      space_.num_left = num_segments * 2;
      space_.left = std::make_unique<std::atomic<int64_t>[]>(space_.num_left);
    }
    space_.work.Clear();
    for (size_t s = 0; s < num_segments; ++s) {
      const Segment& segment = space_.segments[s];
      AddStage(ExpertOf(segment).gate_up, segment.rows, segment.gate_up_per_tile);
      space_.left[s].store(space_.work.num_tiles(s), std::memory_order_relaxed);
    }
    for (const Segment& segment : space_.segments) {
      AddStage(ExpertOf(segment).down, segment.rows, segment.down_per_tile);
    }
  }

  void AddStage(const PackedMatrix& w, int64_t rows, int64_t per_tile) {
    space_.work.Add((NumPanels(w) + per_tile - 1) / per_tile,
                    PanelCost(weight_kernels_, rows, w.k) * static_cast<double>(per_tile),
                    (MinPanels(weight_kernels_, rows) + per_tile - 1) / per_tile);
  }

  void Eat(int num_threads) const {
    TileWorker worker(weight_kernels_);
    size_t stage = 0;
    for (TileWork::Range range; space_.work.Take(num_threads, stage, range);) {
      const size_t num_segments = space_.segments.size();
      if (range.stage < num_segments) {
        GateUp(range, space_.segments[range.stage], worker);
        space_.left[range.stage].fetch_sub(range.end - range.begin, std::memory_order_release);
      } else {
        const size_t segment = range.stage - num_segments;
        WaitForZero(space_.left[segment]);
        Down(range, space_.segments[segment], worker);
      }
    }
  }

  // Whoever holds the missing tiles is running; where threads share a CPU, let it.
  static void WaitForZero(const std::atomic<int64_t>& left) {
    for (int spins = 0; left.load(std::memory_order_acquire) != 0; ++spins) {  // partner: the release in Eat
      if (spins < 2000) {
        sys::SpinPause();
      } else {
        std::this_thread::yield();
      }
    }
  }

  void GateUp(const TileWork::Range& range, const Segment& segment, TileWorker& worker) const {
    const ExpertWeights& expert = ExpertOf(segment);
    const int64_t per_tile = segment.gate_up_per_tile;
    worker.SetRows(static_cast<int64_t>(range.stage), {.list = args_.rows}, segment.row_begin, segment.rows,
                   expert.gate_up);
    worker.Multiply(
        expert.gate_up, range.begin * per_tile, std::min(NumPanels(expert.gate_up), range.end * per_tile),
        per_tile, [&](int64_t row, int num_rows, int64_t panel, int64_t num_panels, const float* tile) {
          const int64_t col = panel / 2 * kPanelRows;
          kernels_.activate(
              {.tile = tile,
               .rows = num_rows,
               .cols = std::min(num_panels / 2 * kPanelRows, args_.inter - col),
               .bias = expert.gate_up_bias != nullptr ? expert.gate_up_bias + panel * kPanelRows : nullptr,
               .clamped_swiglu = args_.activation == Activation::kClampedSwiglu,
               .alpha = args_.swiglu_alpha,
               .limit = args_.swiglu_limit,
               .bf16 = args_.act_type == DType::kBf16,
               .out = InterRow(segment.row_begin + row) + col * act_bytes_,
               .out_stride = inter_stride_});
        });
  }

  void Down(const TileWork::Range& range, const Segment& segment, TileWorker& worker) const {
    const ExpertWeights& expert = ExpertOf(segment);
    const int64_t per_tile = segment.down_per_tile;
    const RowView rows{.base = InterRow(0), .stride_bytes = inter_stride_ * act_bytes_};
    worker.SetRows(static_cast<int64_t>(range.stage), rows, segment.row_begin, segment.rows, expert.down);
    worker.Multiply(
        expert.down, range.begin * per_tile, std::min(NumPanels(expert.down), range.end * per_tile), per_tile,
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

  const ExpertWeights& ExpertOf(const Segment& segment) const {
    return args_.experts[static_cast<size_t>(segment.expert)];
  }
  std::byte* InterRow(int64_t row) const {
    return static_cast<std::byte*>(args_.inter_rows) + row * inter_stride_ * act_bytes_;
  }

  const ExpertsArgs& args_;
  const GemmKernels& kernels_;
  const PackFormat format_;
  const WeightKernels& weight_kernels_;
  Workspace& space_;
  const int64_t act_bytes_, inter_stride_;
};

}  // namespace

void RunExperts(const Device& device, const ExpertsArgs& args) {
  CADRE_CHECK(args.act_type == DType::kBf16 || args.act_type == DType::kF32);
  CADRE_CHECK(args.experts.empty() || RowTypeOf(args.experts.front().gate_up.format) == args.act_type);
  thread_local Workspace workspace;
  ExpertsRun(device, args, workspace).Run(device.pool);
}

}  // namespace cadre::kernels
