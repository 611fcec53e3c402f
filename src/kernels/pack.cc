#include "kernels/pack.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"

namespace cadre::kernels {
namespace {

template <DType kType>
float ReadFloat(const void* from, int64_t idx) {
  if constexpr (kType == DType::kF32) {
    float value;
    std::memcpy(&value, static_cast<const char*>(from) + idx * 4, 4);  // files align tensors to nothing
    return value;
  } else {
    uint16_t bits;
    std::memcpy(&bits, static_cast<const char*>(from) + idx * 2, 2);
    return kType == DType::kBf16 ? ToFloat(Bf16{bits}) : HalfToFloat(bits);
  }
}

template <DType kType>
Bf16 ReadBf16(const void* from, int64_t idx) {
  if constexpr (kType == DType::kBf16) {
    Bf16 value;
    std::memcpy(&value, static_cast<const char*>(from) + idx * 2, 2);
    return value;
  } else {
    return ToBf16(ReadFloat<kType>(from, idx));
  }
}

int64_t PanelBytes(const PackedMatrix& w) {
  return RoundUp(w.k, 2) * kPanelRows * (w.format == PackFormat::kBf16 ? 2 : 4);
}

// One row of the source into its lane of a panel: k is strided by a cache line, so 16 rows fill it line by
// line. The caller walks the 16 rows of a panel over a stretch of k that stays in L1.
template <DType kType>
void PackStretch(const PackedMatrix& to, std::byte* panel, int64_t lane, const void* row, int64_t k_begin,
                 int64_t k_end) {
  if (to.format == PackFormat::kF32) {
    float* out = reinterpret_cast<float*>(panel) + lane;
    for (int64_t k = k_begin; k < k_end; ++k) out[k * kPanelRows] = ReadFloat<kType>(row, k);
    return;
  }
  uint32_t* out = reinterpret_cast<uint32_t*>(panel) + lane;
  for (int64_t k = k_begin; k < k_end; k += 2) {
    const uint32_t low = ReadBf16<kType>(row, k).bits;
    const uint32_t high = k + 1 < k_end ? ReadBf16<kType>(row, k + 1).bits : 0;
    out[k / 2 * kPanelRows] = low | high << 16;
  }
}

template <DType kType>
void PackRowsOf(const PackedMatrix& to, int64_t row_begin, int64_t num_rows, const void* from,
                int64_t row_stride) {
  constexpr int64_t kStretch = 128;  // 16 rows x 128 k are at most 8 KiB read and 8 KiB written
  const int64_t panel_bytes = PanelBytes(to), row_end = row_begin + num_rows;
  for (int64_t row = row_begin; row < row_end;) {
    const int64_t panel_end = std::min(row_end, row / kPanelRows * kPanelRows + kPanelRows);
    std::byte* panel = to.data + row / kPanelRows * panel_bytes;
    for (int64_t k = 0; k < to.k; k += kStretch) {
      for (int64_t r = row; r < panel_end; ++r) {
        const char* source =
            static_cast<const char*>(from) + (r - row_begin) * row_stride * DTypeBytes(kType);
        PackStretch<kType>(to, panel, r % kPanelRows, source, k, std::min(to.k, k + kStretch));
      }
    }
    if (to.format == PackFormat::kF32 && to.k % 2 == 1) {
      float* last = reinterpret_cast<float*>(panel) + to.k * kPanelRows;
      for (int64_t r = row; r < panel_end; ++r) last[r % kPanelRows] = 0;
    }
    row = panel_end;
  }
}

void ZeroLanes(const PackedMatrix& to, int64_t lane_begin) {
  std::byte* panel = to.data + to.n / kPanelRows * PanelBytes(to);
  const int64_t lines = PanelBytes(to) / 64;
  for (int64_t line = 0; line < lines; ++line) {
    std::memset(panel + line * 64 + lane_begin * 4, 0, static_cast<size_t>((kPanelRows - lane_begin) * 4));
  }
}

}  // namespace

int64_t PackedBytes(PackFormat format, int64_t n, int64_t k) {
  return RoundUp(n, kPanelRows) * RoundUp(k, 2) * (format == PackFormat::kBf16 ? 2 : 4);
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
  if (row_begin + num_rows == to.n && to.n % kPanelRows != 0) ZeroLanes(to, to.n % kPanelRows);
}

void UnpackRows(const PackedMatrix& from, int64_t row_begin, int64_t num_rows, float* to,
                int64_t row_stride) {
  CADRE_CHECK(row_begin >= 0 && num_rows >= 0 && row_begin + num_rows <= from.n);
  for (int64_t row = row_begin; row < row_begin + num_rows; ++row) {
    const std::byte* panel = from.data + row / kPanelRows * PanelBytes(from);
    float* out = to + (row - row_begin) * row_stride;
    for (int64_t k = 0; k < from.k; ++k) {
      if (from.format == PackFormat::kF32) {
        out[k] = reinterpret_cast<const float*>(panel)[k * kPanelRows + row % kPanelRows];
      } else {
        const uint32_t pair = reinterpret_cast<const uint32_t*>(panel)[k / 2 * kPanelRows + row % kPanelRows];
        out[k] = ToFloat(Bf16{static_cast<uint16_t>(k % 2 == 0 ? pair : pair >> 16)});
      }
    }
  }
}

}  // namespace cadre::kernels
