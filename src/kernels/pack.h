#pragma once
// Weights in the order the matrix kernels read them.
//
// A matrix W [n, k] (row = output) is cut into panels of 16 rows. Inside a panel, k runs outermost, so that one step of
// a kernel reads one cache line and feeds 16 outputs:
//
//   kBf16   panel = [k/2][16 rows][2]  bf16   (64 bytes a k-pair: also the B tile of AMX, and the operand of vdpbf16ps)
//   kF32    panel = [k][16 rows]       f32
//
// n is padded to 16 and k to 2 with zeros. The same layout serves every instruction set, so packed bytes with equal
// layout ids can be copied between ranks as they are.
#include <cstddef>
#include <cstdint>

#include "tensor/dtype.h"

namespace cadre::kernels {

enum class PackFormat : uint8_t { kF32, kBf16 };

constexpr int64_t kPanelRows = 16;

/// A packed matrix; does not own its bytes (64-byte aligned).
struct PackedMatrix {
  std::byte* data = nullptr;
  int64_t n = 0;  ///< rows = outputs, unpadded
  int64_t k = 0;  ///< columns = inputs, unpadded
  PackFormat format = PackFormat::kBf16;
};

constexpr int64_t RoundUp(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

/// Bytes of a packed [n, k] matrix, padding included; a multiple of 64.
int64_t PackedBytes(PackFormat format, int64_t n, int64_t k);

/// Writes rows [row_begin, row_begin + num_rows) of `to`: `from` points at the first of them, [num_rows, k] of `type`
/// (kF32, kBf16 or kF16), rows `row_stride` elements apart (so a column shard is a pointer offset). Padding rows and
/// columns that belong to the touched panels are zeroed when the last row (row_begin + num_rows == n) is written.
/// Rounds to nearest even where the format is narrower. Any number of threads on different panels.
void PackRows(const PackedMatrix& to, int64_t row_begin, int64_t num_rows, const void* from, DType type,
              int64_t row_stride);

/// The inverse, for tests and for weights that travel in the neutral form: rows [row_begin, + num_rows) as f32.
void UnpackRows(const PackedMatrix& from, int64_t row_begin, int64_t num_rows, float* to, int64_t row_stride);

}  // namespace cadre::kernels
