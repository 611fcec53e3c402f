#pragma once
// Weights in the order the matrix kernels read them.
//
// A matrix W [n, k] (row = output) is cut into panels of 16 rows. Inside a panel, k runs outermost, so that
// one step of a kernel reads one cache line and feeds 16 outputs:
//
//   kBf16: [k/2][16 rows][2] bf16. 64 bytes a pair of k; also the B tile of AMX, the operand of vdpbf16ps
//
//   kF32: [k][16 rows] f32
//
//   kFp8, kFp8F32: for each scale group [16 rows] f32 scales, then [k/4] lines of 64 e4m3 codes, a line being
//   [4 x 4 rows][2 pairs of k][4 rows][2]: where it is made bf16, the halves of each 16 bytes become the two
//   lines of kBf16 (unpack instructions work within 16 bytes)
//
// n is padded to 16 and k to 2 (fp8: 4) with zeros. The same layout serves every instruction set, so packed
// bytes with equal layout ids can be copied between ranks as they are.
//
// A weight of fp8 is code * scale. A scale belongs to one row and one group of `scale_block` columns (0: all
// columns). Where a shard begins inside a group, `scale_phase` columns of the first group lie before it; up
// to three zero columns then stand in front, so that groups begin at lines. Scales of 128 columns each are 3
// % of the bytes.
#include <cstddef>
#include <cstdint>

#include "tensor/dtype.h"

namespace cadre::kernels {

enum class PackFormat : uint8_t {
  kF32,
  kBf16,
  kFp8,     ///< e4m3, for bf16 rows
  kFp8F32,  ///< the same bytes, for f32 rows
};

constexpr bool IsFp8(PackFormat format) {
  return format == PackFormat::kFp8 || format == PackFormat::kFp8F32;
}

/// Of the rows that a weight is multiplied with: kBf16 or kF32.
constexpr DType RowTypeOf(PackFormat format) {
  return format == PackFormat::kBf16 || format == PackFormat::kFp8 ? DType::kBf16 : DType::kF32;
}

constexpr int64_t kPanelRows = 16;

/// A packed matrix; does not own its bytes (64-byte aligned).
struct PackedMatrix {
  std::byte* data = nullptr;
  int64_t n = 0;  ///< rows = outputs, unpadded
  int64_t k = 0;  ///< columns = inputs, unpadded
  PackFormat format = PackFormat::kBf16;
  int32_t scale_block = 0;  ///< fp8: columns of a scale, a multiple of 4; 0: one scale a row
  int32_t scale_phase =
      0;  ///< fp8: columns of the first scale that lie before column 0; 0 .. scale_block - 1
};

constexpr int64_t RoundUp(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

/// The lines of 64 bytes of an fp8 panel, and how they are grouped: each group has a line of scales in front.
struct Fp8Panel {
  int64_t lead = 0;         ///< zero columns in front of column 0
  int64_t num_lines = 0;    ///< of codes, each 4 columns
  int64_t num_groups = 1;   ///< = scales of a row
  int64_t first_lines = 0;  ///< of the first group; at most the last one is shorter than group_lines
  int64_t group_lines = 0;
  int64_t bytes() const { return (num_lines + num_groups) * 64; }
};
Fp8Panel Fp8PanelOf(const PackedMatrix& w);

/// Bytes of a packed [n, k] matrix, padding included; a multiple of 64. The first form is for fp8 with one
/// scale a row.
int64_t PackedBytes(PackFormat format, int64_t n, int64_t k);
int64_t PackedBytes(const PackedMatrix& shape);

/// Writes rows [row_begin, row_begin + num_rows) of `to`: `from` points at the first of them, [num_rows, k]
/// of `type` (kF32, kBf16 or kF16), rows `row_stride` elements apart (so a column shard is a pointer offset).
/// Padding rows and columns that belong to the touched panels are zeroed when the last row (row_begin +
/// num_rows == n) is written. Rounds to nearest even where the format is narrower. An fp8 matrix gets scales
/// of its own: for each row and group the smallest power of two that brings the largest magnitude to 448 at
/// most, so that a weight's code hardly depends on what else is in the shard. Any number of threads on
/// different panels.
void PackRows(const PackedMatrix& to, int64_t row_begin, int64_t num_rows, const void* from, DType type,
              int64_t row_stride);

/// Rows of an fp8 matrix as published: `codes` [num_rows, k] with rows `row_stride` apart, `scales`
/// [num_rows, num_groups] (each code is multiplied with it). Otherwise as PackRows.
void PackScaledRows(const PackedMatrix& to, int64_t row_begin, int64_t num_rows, const uint8_t* codes,
                    int64_t row_stride, const float* scales);

/// The inverse, for tests and for weights that travel in the neutral form: rows [row_begin, + num_rows) as
/// f32.
void UnpackRows(const PackedMatrix& from, int64_t row_begin, int64_t num_rows, float* to, int64_t row_stride);

}  // namespace cadre::kernels
