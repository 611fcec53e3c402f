#include "kernels/pack.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "kernels/pack_fp8.h"
#include "kernels/pack_units.h"

namespace cadre::kernels {
namespace {

int64_t PanelBytes(const PackedMatrix& w) {
  if (IsFp8(w.format)) return Fp8PanelOf(w).bytes();
  return RoundUp(w.k, 2) * kPanelRows * (w.format == PackFormat::kBf16 ? 2 : 4);
}

template <DType kType, PackFormat kFormat>
void PackRowsOf(const PackedMatrix& to, int64_t row_begin, int64_t num_rows, const void* from,
                int64_t row_stride) {
  constexpr int64_t kPerUnit = kFormat == PackFormat::kBf16 ? 2 : 1;
  constexpr bool kAsItIs =
      kFormat == (kType == DType::kF32 ? PackFormat::kF32 : PackFormat::kBf16) && kType != DType::kF16;
  Units units;
  const int64_t panel_bytes = PanelBytes(to), row_end = row_begin + num_rows;
  for (int64_t row = row_begin; row < row_end;) {
    const int64_t lane = row % kPanelRows, lane_end = std::min(kPanelRows, lane + row_end - row);
    const char* source = static_cast<const char*>(from) + (row - row_begin) * row_stride * DTypeBytes(kType);
    auto* const panel = reinterpret_cast<uint32_t*>(to.data + row / kPanelRows * panel_bytes);
    int64_t begin = 0;
    if (kAsItIs && lane_end - lane == kPanelRows)
      begin = TransposeAll<false>(source, row_stride * DTypeBytes(kType), to.k / kPerUnit, panel) * kPerUnit;
    for (int64_t k = begin; k < to.k; k += kStretch) {
      const int64_t count = std::min(kStretch, to.k - k), num_lines = RoundUp(count, 2) / kPerUnit;
      for (int64_t l = lane; l < lane_end; ++l) {
        Convert<kType, kFormat>(source + ((l - lane) * row_stride + k) * DTypeBytes(kType), count,
                                units.row[l]);
      }
      Transpose<false>(units, num_lines, lane, lane_end, panel + k / kPerUnit * kPanelRows);
    }
    row += lane_end - lane;
  }
}

template <DType kType>
void PackRowsOf(const PackedMatrix& to, int64_t row_begin, int64_t num_rows, const void* from,
                int64_t row_stride) {
  if (IsFp8(to.format)) {
    QuantizeRows(to, row_begin, num_rows, from, kType, row_stride);
  } else if (to.format == PackFormat::kBf16) {
    PackRowsOf<kType, PackFormat::kBf16>(to, row_begin, num_rows, from, row_stride);
  } else {
    PackRowsOf<kType, PackFormat::kF32>(to, row_begin, num_rows, from, row_stride);
  }
}

void ZeroLanes(const PackedMatrix& to, int64_t lane_begin) {
  std::byte* panel = to.data + to.n / kPanelRows * PanelBytes(to);
  const int64_t lines = PanelBytes(to) / 64;
  for (int64_t line = 0; line < lines; ++line) {
    std::memset(panel + line * 64 + lane_begin * 4, 0, static_cast<size_t>((kPanelRows - lane_begin) * 4));
  }
}

// Once the last row is there.
void ZeroPadding(const PackedMatrix& to, int64_t row_end) {
  if (row_end != to.n || to.n % kPanelRows == 0) return;
  IsFp8(to.format) ? ZeroFp8Lanes(to, to.n % kPanelRows) : ZeroLanes(to, to.n % kPanelRows);
}

}  // namespace

int64_t PackedBytes(const PackedMatrix& shape) {
  return RoundUp(shape.n, kPanelRows) / kPanelRows * PanelBytes(shape);
}

int64_t PackedBytes(PackFormat format, int64_t n, int64_t k) {
  return PackedBytes(PackedMatrix{.n = n, .k = k, .format = format});
}

void PackRows(const PackedMatrix& to, int64_t row_begin, int64_t num_rows, const void* from, DType type,
              int64_t row_stride) {
  CADRE_CHECK(row_begin >= 0 && num_rows >= 0 && row_begin + num_rows <= to.n);
  switch (type) {
    case DType::kF32:
      PackRowsOf<DType::kF32>(to, row_begin, num_rows, from, row_stride);
      break;
    case DType::kBf16:
      PackRowsOf<DType::kBf16>(to, row_begin, num_rows, from, row_stride);
      break;
    case DType::kF16:
      PackRowsOf<DType::kF16>(to, row_begin, num_rows, from, row_stride);
      break;
    default:
      CheckFailed(__FILE__, __LINE__, "PackRows reads float32, bfloat16 and float16");
  }
  ZeroPadding(to, row_begin + num_rows);
  FinishStores();
}

void PackScaledRows(const PackedMatrix& to, int64_t row_begin, int64_t num_rows, const uint8_t* codes,
                    int64_t row_stride, const float* scales) {
  CADRE_CHECK(IsFp8(to.format) && row_begin >= 0 && num_rows >= 0 && row_begin + num_rows <= to.n);
  WriteFp8Rows(to, row_begin, num_rows, codes, row_stride, scales);
  ZeroPadding(to, row_begin + num_rows);
  FinishStores();
}

void UnpackRows(const PackedMatrix& from, int64_t row_begin, int64_t num_rows, float* to,
                int64_t row_stride) {
  CADRE_CHECK(row_begin >= 0 && num_rows >= 0 && row_begin + num_rows <= from.n);
  for (int64_t row = row_begin; row < row_begin + num_rows; ++row) {
    const std::byte* panel = from.data + row / kPanelRows * PanelBytes(from);
    float* out = to + (row - row_begin) * row_stride;
    if (IsFp8(from.format)) {
      UnpackFp8Row(from, row, out);
      continue;
    }
    if (from.format == PackFormat::kF32) {
      const float* lane = reinterpret_cast<const float*>(panel) + row % kPanelRows;
      for (int64_t k = 0; k < from.k; ++k) out[k] = lane[k * kPanelRows];
      continue;
    }
    const uint32_t* lane = reinterpret_cast<const uint32_t*>(panel) + row % kPanelRows;
    for (int64_t k = 0; k < from.k; k += 2) {
      const uint32_t pair = lane[k / 2 * kPanelRows];
      out[k] = ToFloat(Bf16{static_cast<uint16_t>(pair)});
      if (k + 1 < from.k) out[k + 1] = ToFloat(Bf16{static_cast<uint16_t>(pair >> 16)});
    }
  }
}

}  // namespace cadre::kernels
