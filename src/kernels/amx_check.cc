#include "kernels/amx_check.h"

#include <array>

#include "kernels/pack.h"
#include "tensor/dtype.h"

namespace cadre::kernels {
namespace {

constexpr int64_t kColumns = 80;  // two steps and a half
constexpr int kLines = kColumns / 2;

int RowNumber(int64_t row, int64_t column) {
  return static_cast<int>((row * 7 + column * 5) % 13) - 6;
}

int WeightNumber(int64_t output, int64_t column) {
  return static_cast<int>((output * 3 + column * 11) % 17) - 8;
}

bool Right(const WeightKernels& kernels, TileFn multiply, int num_rows, int num_panels) {
  static_assert(kPanelRows == 16);
  Bf16 rows[kMaxTileRows][kColumns];
  alignas(64) Bf16 panels[kMaxTilePanels][kLines][16][2];
  alignas(64) std::byte packed[kMaxTileRows * 3 * 64];
  alignas(64) float sums[kMaxTileRows * kTileStride];
  const void* places[kMaxTileRows];
  for (int r = 0; r < num_rows; ++r) {
    for (int64_t k = 0; k < kColumns; ++k) rows[r][k] = ToBf16(static_cast<float>(RowNumber(r, k)));
    places[r] = rows[r];
  }
  for (int64_t output = 0; output < num_panels * 16; ++output) {
    for (int64_t k = 0; k < kColumns; ++k)
      panels[output / 16][k / 2][output % 16][k % 2] = ToBf16(static_cast<float>(WeightNumber(output, k)));
  }
  kernels.pack_block({.rows = places, .num_rows = num_rows, .k = kColumns, .out = packed});
  kernels.configure(num_rows);
  multiply({.a = packed,
            .b = reinterpret_cast<const std::byte*>(panels),
            .panel_bytes = sizeof(panels[0]),
            .steps = kLines,
            .out = sums,
            .rows = num_rows});
  kernels.release();
  for (int r = 0; r < num_rows; ++r) {
    for (int output = 0; output < num_panels * 16; ++output) {
      int wanted = 0;
      for (int64_t k = 0; k < kColumns; ++k) wanted += RowNumber(r, k) * WeightNumber(output, k);
      if (sums[r * kTileStride + output] != static_cast<float>(wanted)) return false;
    }
  }
  return true;
}

}  // namespace

bool TilesMultiplyRight(const WeightKernels& kernels) {
  for (const int rows : {1, 5, 16, 17, 29, 32}) {
    for (int log2 = 0; log2 < 3; ++log2) {
      const TileFn multiply = kernels.tile[rows - 1][log2];
      if (multiply != nullptr && !Right(kernels, multiply, rows, 1 << log2)) return false;
    }
  }
  return true;
}

}  // namespace cadre::kernels
