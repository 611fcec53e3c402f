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

thread_local Arena packed_rows_arena, decoded_panels_arena;

int64_t Steps(const WeightKernels& kernels, int64_t k) {
  return (k + kernels.k_per_step - 1) / kernels.k_per_step;
}

// Steps that are packed for each row of an fp8 weight.
int64_t Fp8Steps(const WeightKernels& kernels, const Fp8Panel& shape) {
  if (kernels.step_lines == 1) return shape.num_lines;
  int64_t steps = 0, group = shape.first_lines;
  for (int64_t left = shape.num_lines; left > 0; left -= group, group = shape.group_lines)
    steps += (std::min(group, left) + kernels.step_lines - 1) / kernels.step_lines;
  return steps;
}

// Tiles for rows of bf16, vectors for the rest. vdpbf16ps runs at half the rate of f32 multiply-adds on the
// CPUs that have AMX, so what is not a tile is f32 there.
GemmKernels WithTiles(const WeightKernels& bf16, const WeightKernels& fp8) {
  GemmKernels kernels = avx512::kGemmKernels;
  kernels.bf16 = bf16;
  kernels.fp8 = fp8;
  return kernels;
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
    case Isa::kAmx: {
      static const GemmKernels kernels = WithTiles(amx::kBf16Kernels, amx::kFp8Kernels);
      return kernels;
    }
    case Isa::kAmxEmulated: {
      static const GemmKernels kernels = WithTiles(amx_emulated::kBf16Kernels, amx_emulated::kFp8Kernels);
      return kernels;
    }
  }
  CheckFailed(__FILE__, __LINE__, "known instruction set");
}

int64_t SegmentRows(const WeightKernels& kernels, int64_t k) {
  const int64_t row_bytes = std::max<int64_t>(1, Steps(kernels, k) * kernels.a_step_bytes);
  const int64_t rows = std::clamp<int64_t>(kernels.segment_bytes / row_bytes, 48, kernels.max_segment_rows);
  const int64_t unit = std::max(kernels.max_rows, 12);
  return rows / unit * unit;
}

int64_t PanelsPerTile(const WeightKernels& kernels, int64_t rows) {
  const int64_t num_blocks = (rows + kernels.max_rows - 1) / kernels.max_rows;
  const int64_t block_rows = (rows + num_blocks - 1) / num_blocks;
  const bool decoded = kernels.decode != nullptr && num_blocks > 1;
  const TileFn* tile = decoded ? kernels.decoded_tile[block_rows - 1] : kernels.tile[block_rows - 1];
  return tile[2] != nullptr ? 4 : tile[1] != nullptr ? 2 : 1;
}

double PanelCost(const WeightKernels& kernels, int64_t rows, int64_t k) {
  constexpr double kLineNs = 1.5;  // a cache line from beyond L2, between L3 and DRAM
  return static_cast<double>(Steps(kernels, k)) *
         std::max(kLineNs * kernels.step_lines, static_cast<double>(rows) * kernels.line_ns);
}

int64_t MinPanels(const WeightKernels& kernels, int64_t rows) {
  return rows > kernels.max_rows ? 8 : 1;
}

void TileWorker::SetRows(int64_t key, const RowView& rows, int64_t row_begin, int64_t num_rows,
                         const PackedMatrix& w) {
  if (key == key_) return;
  key_ = key;
  num_rows_ = num_rows;
  const Fp8Panel shape = IsFp8(w.format) ? Fp8PanelOf(w) : Fp8Panel{};
  steps_ = IsFp8(w.format) ? Fp8Steps(kernels_, shape) : Steps(kernels_, w.k);
  const int64_t row_bytes = steps_ * kernels_.a_step_bytes;
  packed_ = packed_rows_arena.Take(num_rows * row_bytes);
  const int64_t num_blocks = (num_rows + kernels_.max_rows - 1) / kernels_.max_rows;
  for (int64_t block = 0; block < num_blocks; ++block) {
    const int64_t begin = BlockBegin(block, num_blocks), end = BlockBegin(block + 1, num_blocks);
    const void* block_rows[kMaxTileRows];
    for (int64_t r = begin; r < end; ++r) block_rows[r - begin] = rows.At(row_begin + r);
    kernels_.pack_block({.rows = block_rows,
                         .num_rows = static_cast<int>(end - begin),
                         .k = w.k,
                         .lead = shape.lead,
                         .first_lines = shape.first_lines,
                         .group_lines = shape.group_lines,
                         .out = packed_ + begin * row_bytes});
  }
}

// The widest kernel for what is left of a tile's panels.
namespace {
int Log2Panels(const TileFn* tiles, int64_t num_panels) {
  return num_panels >= 4 && tiles[2] != nullptr ? 2 : num_panels >= 2 && tiles[1] != nullptr ? 1 : 0;
}

// 64 lines in flight hide the latency of DRAM where four panels stream for few rows; where fewer panels make
// more work of each line, twice as many measured better. The hardware's own prefetcher stops at every 4 KiB.
int64_t FetchDistance(int64_t num_lines, int log2) {
  return std::min<int64_t>(num_lines, log2 == 2 ? 16 : 64);
}
}  // namespace

void TileWorker::MultiplyTile(const PackedMatrix& w, int64_t row, int64_t rows, int64_t panel,
                              int64_t num_panels, bool moves_on, float* tile) {
  const int64_t panel_bytes = PackedBytes(w.format, kPanelRows, w.k);
  // The rows have no step for the line that fills up a panel of f32, nor the panel all lines of a last tile.
  const int64_t num_lines = std::min(panel_bytes / 64, steps_ * kernels_.step_lines);
  TileArgs args{.a = packed_ + row * steps_ * kernels_.a_step_bytes,
                .b = w.data + panel * panel_bytes,
                .panel_bytes = panel_bytes,
                .steps = num_lines,
                .out = tile,
                .rows = rows};
  const TileFn* tiles = kernels_.tile[rows - 1];
  while (num_panels > 0) {
    const int log2 = Log2Panels(tiles, num_panels);
    num_panels -= 1 << log2;
    const int64_t distance = FetchDistance(num_lines, log2);
    // Where a step is a tile, fetching what an earlier block has brought near would take the buffers that
    // loading tiles needs.
    args.ahead = row > 0 && kernels_.step_lines > 1 ? 0 : distance * 64;
    args.tail_steps = distance;
    args.tail_ahead = num_panels > 0 || moves_on ? (panel_bytes << log2) - (num_lines - distance) * 64 : 0;
    tiles[log2](args);
    args.b += panel_bytes << log2;
    args.out += kPanelRows << log2;
  }
}

void TileWorker::Decode(const PackedMatrix& w, int64_t panel, int64_t num_panels) {
  const Fp8Panel shape = Fp8PanelOf(w);
  const int64_t to_bytes = DecodedPanelBytes(shape);
  decoded_ = decoded_panels_arena.Take(num_panels * to_bytes);
  for (int64_t p = 0; p < num_panels; ++p) {
    kernels_.decode({.from = w.data + (panel + p) * shape.bytes(),
                     .to = decoded_ + p * to_bytes,
                     .num_lines = shape.num_lines,
                     .first_lines = shape.first_lines,
                     .group_lines = shape.group_lines});
  }
}

void TileWorker::MultiplyFp8Tile(const PackedMatrix& w, int64_t row, int64_t rows, int64_t panel,
                                 int64_t num_panels, bool moves_on, bool decoded, float* tile) {
  const Fp8Panel shape = Fp8PanelOf(w);
  const int64_t packed_bytes = shape.bytes(), num_lines = shape.num_lines + shape.num_groups;
  const std::byte* packed = w.data + panel * packed_bytes;
  const std::byte* next = packed + num_panels * packed_bytes;
  TileArgs args{.a = packed_ + row * steps_ * kernels_.a_step_bytes,
                .b = decoded ? decoded_ : packed,
                .panel_bytes = decoded ? DecodedPanelBytes(shape) : packed_bytes,
                .steps = shape.num_lines,
                .out = tile,
                .first_lines = shape.first_lines,
                .group_lines = shape.group_lines,
                .rows = rows};
  const TileFn* tiles = decoded ? kernels_.decoded_tile[rows - 1] : kernels_.tile[rows - 1];
  while (num_panels > 0) {
    const int log2 = Log2Panels(tiles, num_panels);
    num_panels -= 1 << log2;
    args.fetch = packed;  // where nothing is to be fetched, one line over and over
    args.fetch_panel = args.fetch_step = args.fetch_lines = args.fetch_jump = 0;
    if (decoded && moves_on && num_panels == 0) {
      args.fetch = next;
      args.fetch_panel = packed_bytes;
      args.fetch_step = 64;
    } else if (!decoded) {
      const int64_t distance = FetchDistance(num_lines, log2), tile_bytes = packed_bytes << log2;
      const bool jumps = num_panels > 0 || moves_on;  // else round again, over lines that are here
      args.fetch = packed + distance * 64;
      args.fetch_panel = packed_bytes;
      args.fetch_step = 64;
      args.fetch_lines = num_lines - distance;
      args.fetch_jump = (jumps ? tile_bytes : 0) - packed_bytes;
      if (args.fetch_lines == 0) args.fetch += args.fetch_jump;
    }
    tiles[log2](args);
    args.b += args.panel_bytes << log2;
    args.out += kPanelRows << log2;
    packed += packed_bytes << log2;
  }
}

}  // namespace cadre::kernels
