#pragma once
// What an instruction set brings to the matrix product: micro kernels and epilogues, as tables of functions.
//
// A micro kernel multiplies a block of up to 12 rows (AMX: 32), packed step by step, with 1, 2 or 4 panels of
// the weight, over all of k, and leaves the sums in a tile. Every sum is one chain in rising k that starts at
// zero and lives in one lane of one register (AMX: of 32 values of k each, amx_templates.h), so its value
// depends neither on the shape of the block nor on its place in it. Epilogues take tiles to memory (bias,
// weights of rows, activation, rounding), element by element.
//
// This header is seen by files compiled for wide instruction sets: plain structs only, no inline functions.
#include <cstddef>
#include <cstdint>

namespace cadre::kernels {

constexpr int kMaxTileRows = 32;
constexpr int kMaxTilePanels = 4;
constexpr int kTileStride = kMaxTilePanels * 16;  ///< floats between the rows of a tile

struct TileArgs {
  const void* a = nullptr;       ///< packed rows
  const std::byte* b = nullptr;  ///< first panel
  int64_t panel_bytes = 0;
  int64_t ahead = 0;       ///< bytes from a line in use to the one to fetch meanwhile
  int64_t tail_steps = 0;  ///< the last steps of the panel,
  int64_t tail_ahead = 0;  ///< whose distance is this: the lines fetched then belong to the next tile
  int64_t steps =
      0;  ///< cache lines of a panel to walk: pairs of k for bf16, single k for f32, fours for fp8
  float* out = nullptr;  ///< [rows][kTileStride]

  // fp8 alone, in place of ahead and tail_*: a line of scales stands before each group of lines.
  int64_t first_lines = 0, group_lines = 0;  ///< as Fp8Panel
  const std::byte* fetch = nullptr;          ///< the next line to fetch
  int64_t fetch_panel = 0, fetch_step = 0;   ///< bytes between panels, between lines
  int64_t fetch_lines = 0, fetch_jump = 0;   ///< after so many lines it jumps

  int64_t rows = 0;  ///< for kernels that take them as they come (AMX)
};
using TileFn = void (*)(const TileArgs&);

/// An fp8 panel into lines that decoded_tile reads.
struct DecodeArgs {
  const std::byte* from = nullptr;
  std::byte* to = nullptr;
  int64_t num_lines = 0, first_lines = 0, group_lines = 0;
};

/// Rows into the order of the micro kernels: [steps][rows] units of one step's values.
struct PackBlockArgs {
  const void* const* rows = nullptr;  ///< [num_rows], each [k]
  int num_rows = 0;                   ///< <= kMaxTileRows
  int64_t k = 0;
  int64_t lead = 0;                          ///< fp8 alone: zeros in front
  int64_t first_lines = 0, group_lines = 0;  ///< fp8 alone: as Fp8Panel
  void* out = nullptr;                       ///< num_rows * steps * a_step_bytes
};

/// For one PackFormat.
struct WeightKernels {
  TileFn tile[kMaxTileRows][3] = {};  ///< [rows - 1][log2 panels]; null where the registers do not suffice
  int max_rows = 0;  ///< best block for many rows; all smaller ones exist with 1 panel at least
  int k_per_step = 1;
  int a_step_bytes = 4;  ///< of one packed row
  int step_lines = 1;    ///< cache lines of a panel in a step; steps of fp8 begin anew with each group
  float line_ns = 0;     ///< rough cost of one (row, step of a panel), for cutting work into tasks
  int64_t segment_bytes = 512 << 10;  ///< of packed rows that stay in L2 beside the panels in work
  int64_t max_segment_rows = 192;
  void (*pack_block)(const PackBlockArgs&) = nullptr;

  // fp8 alone: `tile` decodes as it reads; where a panel serves several blocks of rows it is decoded once.
  TileFn decoded_tile[kMaxTileRows][3] = {};
  void (*decode)(const DecodeArgs&) = nullptr;
  int decoded_line_bytes = 0;
  bool decode_always = false;  ///< `tile` is `decoded_tile`

  // AMX alone: a thread calls the first in front of tiles of so many rows, the second when it is done.
  void (*configure)(int rows) = nullptr;
  void (*release)() = nullptr;
};

/// c = or += (tile + bias) * row_weight
struct StoreArgs {
  const float* tile = nullptr;
  int rows = 0;
  int64_t cols = 0;                    ///< valid columns of the tile
  const float* bias = nullptr;         ///< [cols] or null
  const float* row_weights = nullptr;  ///< [rows] or null
  bool accumulate = false;             ///< only f32
  bool bf16 = false;
  void* c = nullptr;
  int64_t c_stride = 0;  ///< elements
};

/// The tile holds gate panel, up panel, gate panel, ...; out = activation(gate + bias, up + bias).
struct ActivateArgs {
  const float* tile = nullptr;
  int rows = 0;
  int64_t cols = 0;             ///< outputs, at most 16 for every two panels
  const float* bias = nullptr;  ///< as the panels lie, or null
  bool clamped_swiglu = false;
  float alpha = 0, limit = 0;
  bool bf16 = false;
  void* out = nullptr;
  int64_t out_stride = 0;  ///< elements
};

struct GemmKernels {
  WeightKernels f32, bf16, fp8, fp8_f32;
  void (*store)(const StoreArgs&) = nullptr;
  void (*activate)(const ActivateArgs&) = nullptr;
};

namespace portable {
extern const GemmKernels kGemmKernels;
}
namespace avx2 {
extern const GemmKernels kGemmKernels;
}
namespace avx512 {
extern const GemmKernels kGemmKernels;
}
namespace avx512_bf16 {
extern const GemmKernels kGemmKernels;
}
// For rows of bf16; all else is avx512's.
namespace amx {
extern const WeightKernels kBf16Kernels, kFp8Kernels;
}
namespace amx_emulated {
extern const WeightKernels kBf16Kernels, kFp8Kernels;
}

}  // namespace cadre::kernels
