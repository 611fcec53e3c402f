#include "kernels/tile_worker.h"

#include <cstdlib>
#include <memory>
#include <new>

#include "base/check.h"

namespace cadre::kernels {
namespace {

// Page faults are dear, so packed rows live in one buffer per thread that only grows.
struct Arena {
  struct Free {
    void operator()(std::byte* memory) const { std::free(memory); }
  };
  std::unique_ptr<std::byte[], Free> data;
  int64_t bytes = 0;

  std::byte* Take(int64_t wanted) {
    if (wanted > bytes) {
      const int64_t more = RoundUp(std::max(wanted, bytes * 2), 4096);
      bytes = 0;
      data.reset(static_cast<std::byte*>(std::aligned_alloc(4096, static_cast<size_t>(more))));
      if (data == nullptr) throw std::bad_alloc();
      bytes = more;
    }
    return data.get();
  }
};

thread_local Arena packed_rows_arena;

int64_t Steps(const WeightKernels& kernels, int64_t k) {
  return (k + kernels.k_per_step - 1) / kernels.k_per_step;
}

}  // namespace

const GemmKernels& GemmKernelsFor(Isa isa) {
  switch (isa) {
    case Isa::kPortable:
      return portable::kGemmKernels;
    case Isa::kAvx2:
      return avx2::kGemmKernels;
    case Isa::kAvx512:
      return avx512::kGemmKernels;
    case Isa::kAvx512Bf16:
      return avx512_bf16::kGemmKernels;
  }
  CheckFailed(__FILE__, __LINE__, "known instruction set");
}

int64_t SegmentRows(const WeightKernels& kernels, int64_t k) {
  const int64_t row_bytes = std::max<int64_t>(1, Steps(kernels, k) * kernels.a_step_bytes);
  const int64_t rows = std::clamp<int64_t>((512 << 10) / row_bytes, 48, 192);  // half of a 1 MiB L2
  return rows / kMaxTileRows * kMaxTileRows;
}

int64_t PanelsPerTile(const WeightKernels& kernels, int64_t rows) {
  const int64_t num_blocks = (rows + kernels.max_rows - 1) / kernels.max_rows;
  const int64_t block_rows = (rows + num_blocks - 1) / num_blocks;
  const TileFn* tile = kernels.tile[block_rows - 1];
  return tile[2] != nullptr ? 4 : tile[1] != nullptr ? 2 : 1;
}

double PanelCost(const WeightKernels& kernels, int64_t rows, int64_t k) {
  constexpr double kLineNs = 1.5;  // a cache line from beyond L2, between L3 and DRAM
  return static_cast<double>(Steps(kernels, k)) *
         std::max(kLineNs, static_cast<double>(rows) * kernels.line_ns);
}

int64_t MinPanels(const WeightKernels& kernels, int64_t rows) {
  return rows > kernels.max_rows ? 8 : 1;
}

void TileWorker::SetRows(int64_t key, const RowView& rows, int64_t row_begin, int64_t num_rows, int64_t k) {
  if (key == key_) return;
  key_ = key;
  num_rows_ = num_rows;
  steps_ = Steps(kernels_, k);
  const int64_t row_bytes = steps_ * kernels_.a_step_bytes;
  packed_ = packed_rows_arena.Take(num_rows * row_bytes);
  const int64_t num_blocks = (num_rows + kernels_.max_rows - 1) / kernels_.max_rows;
  for (int64_t block = 0; block < num_blocks; ++block) {
    const int64_t begin = BlockBegin(block, num_blocks), end = BlockBegin(block + 1, num_blocks);
    const void* block_rows[kMaxTileRows];
    for (int64_t r = begin; r < end; ++r) block_rows[r - begin] = rows.At(row_begin + r);
    kernels_.pack_block({.rows = block_rows,
                         .num_rows = static_cast<int>(end - begin),
                         .k = k,
                         .out = packed_ + begin * row_bytes});
  }
}

void TileWorker::MultiplyTile(const PackedMatrix& w, int64_t row, int64_t rows, int64_t panel,
                              int64_t num_panels, bool moves_on, float* tile) {
  const int64_t panel_bytes = PackedBytes(w.format, kPanelRows, w.k);
  TileArgs args{.a = packed_ + row * steps_ * kernels_.a_step_bytes,
                .b = w.data + panel * panel_bytes,
                .panel_bytes = panel_bytes,
                .steps = steps_,
                .out = tile};
  const TileFn* tiles = kernels_.tile[rows - 1];
  while (num_panels > 0) {
    const int log2 = num_panels >= 4 && tiles[2] != nullptr   ? 2
                     : num_panels >= 2 && tiles[1] != nullptr ? 1
                                                              : 0;
    num_panels -= 1 << log2;
    // 64 lines in flight hide the latency of DRAM where four panels stream for few rows; where fewer panels
    // make more work of each line, twice as many measured better. The hardware's own prefetcher stops at
    // every 4 KiB.
    const int64_t distance = std::min<int64_t>(steps_, log2 == 2 ? 16 : 64);
    args.ahead = distance * 64;
    args.tail_steps = distance;
    args.tail_ahead = num_panels > 0 || moves_on ? (panel_bytes << log2) - (steps_ - distance) * 64 : 0;
    tiles[log2](args);
    args.b += panel_bytes << log2;
    args.out += kPanelRows << log2;
  }
}

}  // namespace cadre::kernels
