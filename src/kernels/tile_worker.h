#pragma once
// What one thread does in a matrix product: pack a segment of rows once, then walk panels of the weight, tile
// by tile.
//
// A segment is at most a few hundred rows, so that its packed form stays in this core's L2 beside the two or
// four panels in work: panels pass from memory once per segment, and again from L2 for each block of rows.
// Each thread that works on a segment packs it for itself: that costs under 1/16 of the work of one task and
// needs no waiting. fp8 panels that meet several blocks are decoded in front of the first one, into memory of
// the thread that stays in L2.
#include <algorithm>
#include <cstdint>

#include "kernels/gemm_kernels.h"
#include "kernels/isa.h"
#include "kernels/pack.h"

namespace cadre::kernels {

const GemmKernels& GemmKernelsFor(Isa isa);

inline const WeightKernels& KernelsFor(const GemmKernels& kernels, PackFormat format) {
  switch (format) {
    case PackFormat::kF32:
      return kernels.f32;
    case PackFormat::kBf16:
      return kernels.bf16;
    case PackFormat::kFp8:
      return kernels.fp8;
    case PackFormat::kFp8F32:
      break;
  }
  return kernels.fp8_f32;
}

/// Rows by address, or evenly spaced.
struct RowView {
  const void* const* list = nullptr;
  const std::byte* base = nullptr;
  int64_t stride_bytes = 0;
  const void* At(int64_t row) const { return list != nullptr ? list[row] : base + row * stride_bytes; }
};

/// The most rows of k values that are worked on at a time.
int64_t SegmentRows(const WeightKernels& kernels, int64_t k);
/// Panels that one tile takes for this many rows: 1, 2 or 4.
int64_t PanelsPerTile(const WeightKernels& kernels, int64_t rows);
/// Rough nanoseconds of one core for `rows` rows through one panel of k values.
double PanelCost(const WeightKernels& kernels, int64_t rows, int64_t k);

/// The fewest panels that repay packing the rows anew, which each thread does that comes to a segment.
int64_t MinPanels(const WeightKernels& kernels, int64_t rows);

class TileWorker {
 public:
  explicit TileWorker(const WeightKernels& kernels) : kernels_(kernels) {}
  ~TileWorker() {
    if (configured_rows_ != 0) kernels_.release();
  }
  TileWorker(const TileWorker&) = delete;
  TileWorker& operator=(const TileWorker&) = delete;

  /// Packs rows [row_begin, row_begin + num_rows) of `rows`, each w.k, for weights shaped like `w`, unless
  /// the last call had the same key (>= 0).
  void SetRows(int64_t key, const RowView& rows, int64_t row_begin, int64_t num_rows, const PackedMatrix& w);

  /// Calls epilogue(row, num_rows, panel, num_panels, tile) for every tile of the rows set and panels [begin,
  /// end); tiles begin at `begin` + a multiple of `panels_per_tile`. Rows count from the first one set.
  template <class Epilogue>
  void Multiply(const PackedMatrix& w, int64_t begin, int64_t end, int64_t panels_per_tile,
                Epilogue&& epilogue) {
    alignas(64) float tile[kMaxTileRows * kTileStride];
    const int64_t num_blocks = (num_rows_ + kernels_.max_rows - 1) / kernels_.max_rows;
    const bool decode = kernels_.decode_always || (kernels_.decode != nullptr && num_blocks > 1);
    for (int64_t panel = begin; panel < end; panel += panels_per_tile) {
      const int64_t num_panels = std::min(panels_per_tile, end - panel);
      if (decode) Decode(w, panel, num_panels);
      for (int64_t block = 0; block < num_blocks; ++block) {
        const int64_t row = BlockBegin(block, num_blocks), rows = BlockBegin(block + 1, num_blocks) - row;
        const bool moves_on = block + 1 == num_blocks && panel + num_panels < end;
        Configure(static_cast<int>(rows));
        if (kernels_.decode != nullptr) {
          MultiplyFp8Tile(w, row, rows, panel, num_panels, moves_on, decode, tile);
        } else {
          MultiplyTile(w, row, rows, panel, num_panels, moves_on, tile);
        }
        epilogue(row, static_cast<int>(rows), panel, num_panels, tile);
      }
    }
  }

 private:
  // Blocks of even height: 13 rows are 7 and 6, not 12 and 1.
  int64_t BlockBegin(int64_t block, int64_t num_blocks) const { return num_rows_ * block / num_blocks; }
  void Configure(int rows) {
    if (kernels_.configure == nullptr || rows == configured_rows_) return;
    kernels_.configure(rows);
    configured_rows_ = rows;
  }
  // moves_on: the panels behind these are next.
  void MultiplyTile(const PackedMatrix& w, int64_t row, int64_t rows, int64_t panel, int64_t num_panels,
                    bool moves_on, float* tile);
  // decoded: from what Decode made of these panels.
  void MultiplyFp8Tile(const PackedMatrix& w, int64_t row, int64_t rows, int64_t panel, int64_t num_panels,
                       bool moves_on, bool decoded, float* tile);
  void Decode(const PackedMatrix& w, int64_t panel, int64_t num_panels);
  int64_t DecodedPanelBytes(const Fp8Panel& shape) const {
    return shape.num_groups * 64 + steps_ * kernels_.step_lines * kernels_.decoded_line_bytes;
  }

  const WeightKernels& kernels_;
  int64_t key_ = -1, num_rows_ = 0, steps_ = 0;
  int configured_rows_ = 0;
  std::byte* packed_ = nullptr;   // this thread's arena
  std::byte* decoded_ = nullptr;  // another
};

}  // namespace cadre::kernels
