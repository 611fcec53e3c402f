#pragma once
// The fp8 side of pack.h, for pack.cc.
#include <cstdint>

#include "kernels/pack.h"

namespace cadre::kernels {

/// As PackRows, with scales made here; `type` kF32, kBf16 or kF16.
void QuantizeRows(const PackedMatrix& to, int64_t row_begin, int64_t num_rows, const void* from, DType type,
                  int64_t row_stride);
/// As PackScaledRows.
void WriteFp8Rows(const PackedMatrix& to, int64_t row_begin, int64_t num_rows, const uint8_t* codes,
                  int64_t row_stride, const float* scales);
void UnpackFp8Row(const PackedMatrix& from, int64_t row, float* to);
/// Lanes [lane_begin, 16) of the last panel.
void ZeroFp8Lanes(const PackedMatrix& to, int64_t lane_begin);

}  // namespace cadre::kernels
