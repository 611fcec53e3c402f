#include "kernels/gemm.h"

#include "base/check.h"
#include "kernels/tile_work.h"
#include "kernels/tile_worker.h"

namespace cadre::kernels {
namespace {

class GemmRun {
 public:
  GemmRun(const Device& device, const GemmArgs& args)
      : device_(device),
        args_(args),
        kernels_(GemmKernelsFor(device.isa)),
        weight_kernels_(KernelsFor(kernels_, args.w.format)),
        num_panels_(RoundUp(args.w.n, kPanelRows) / kPanelRows) {
    const int64_t most = SegmentRows(weight_kernels_, args.w.k);
    num_segments_ = (args.m + most - 1) / most;
    const int64_t rows = (args.m + num_segments_ - 1) / num_segments_;
    panels_per_tile_ = PanelsPerTile(weight_kernels_, rows);
    num_threads_ = device.pool == nullptr ? 1 : device.pool->num_threads();
    while (panels_per_tile_ > 1 && num_panels_ < panels_per_tile_ * num_threads_) {
      panels_per_tile_ /= 2;  // a narrow weight: something for everybody
    }
  }

  void Run(TileWork& work) const {
    work.Clear();
    const int64_t num_tiles = (num_panels_ + panels_per_tile_ - 1) / panels_per_tile_;
    for (int64_t segment = 0; segment < num_segments_; ++segment) {
      const int64_t rows = SegmentBegin(segment + 1) - SegmentBegin(segment);
      const double panel_ns = PanelCost(weight_kernels_, rows, args_.w.k);
      work.Add(num_tiles, panel_ns * static_cast<double>(panels_per_tile_),
               (MinPanels(weight_kernels_, rows) + panels_per_tile_ - 1) / panels_per_tile_);
    }
    if (work.WorthSharing(num_threads_)) {
      device_.pool->Run([&](int) { Eat(work, num_threads_); });
    } else {
      Eat(work, 1);
    }
  }

 private:
  int64_t SegmentBegin(int64_t segment) const { return args_.m * segment / num_segments_; }

  void Eat(TileWork& work, int num_threads) const {
    TileWorker worker(weight_kernels_);
    const RowView rows{.base = static_cast<const std::byte*>(args_.a),
                       .stride_bytes = args_.a_stride * DTypeBytes(RowTypeOf(args_.w.format))};
    size_t stage = 0;
    for (TileWork::Range range; work.Take(num_threads, stage, range);) {
      const auto segment = static_cast<int64_t>(range.stage);
      const int64_t row_begin = SegmentBegin(segment);
      worker.SetRows(segment, rows, row_begin, SegmentBegin(segment + 1) - row_begin, args_.w);
      worker.Multiply(args_.w, range.begin * panels_per_tile_,
                      std::min(num_panels_, range.end * panels_per_tile_), panels_per_tile_,
                      [&](int64_t row, int num_rows, int64_t panel, int64_t num_panels, const float* tile) {
                        StoreTile(row_begin + row, num_rows, panel, num_panels, tile);
                      });
    }
  }

  void StoreTile(int64_t row, int num_rows, int64_t panel, int64_t num_panels, const float* tile) const {
    const int64_t col = panel * kPanelRows;
    kernels_.store(
        {.tile = tile,
         .rows = num_rows,
         .cols = std::min(num_panels * kPanelRows, args_.w.n - col),
         .bias = args_.bias != nullptr ? args_.bias + col : nullptr,
         .accumulate = args_.accumulate,
         .bf16 = args_.c_type == DType::kBf16,
         .c = static_cast<std::byte*>(args_.c) + (row * args_.c_stride + col) * DTypeBytes(args_.c_type),
         .c_stride = args_.c_stride});
  }

  const Device& device_;
  const GemmArgs& args_;
  const GemmKernels& kernels_;
  const WeightKernels& weight_kernels_;
  const int64_t num_panels_;
  int64_t num_segments_ = 0, panels_per_tile_ = 1;
  int num_threads_ = 1;
};

}  // namespace

void Gemm(const Device& device, const GemmArgs& args) {
  if (args.m <= 0 || args.w.n <= 0) return;
  CADRE_CHECK(args.c_type == DType::kF32 || (args.c_type == DType::kBf16 && !args.accumulate));
  thread_local TileWork work;  // of the caller: a step allocates nothing
  GemmRun(device, args).Run(work);
}

void GemmBatch(const Device& device, std::span<const GemmArgs> batch) {
  // Each product on one thread: there are as many as heads, and each is small.
  const Device alone{.isa = device.isa, .pool = nullptr};
  const auto product = [&](int64_t i, int) { Gemm(alone, batch[static_cast<size_t>(i)]); };
  const auto count = static_cast<int64_t>(batch.size());
  if (device.pool != nullptr) return device.pool->ForEach(count, product);
  for (int64_t i = 0; i < count; ++i) product(i, 0);
}

}  // namespace cadre::kernels
