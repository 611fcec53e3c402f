#include "kernels/pack_fp8.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "kernels/pack_units.h"
#include "tensor/fp8.h"

namespace cadre::kernels {
namespace {

constexpr int64_t kPerUnit = 4;  // codes

// Lanes [begin, end) of one panel, and where they come from.
struct Band {
  int64_t begin, end;
  std::byte* panel;
  int64_t first_row;  // of the source
};

// A scale group: its line of scales, and behind it lines [begin, end) of the panel's codes.
struct Group {
  int64_t idx, begin, end;
  std::byte* scales(std::byte* panel) const { return panel + (begin + idx) * 64; }
  uint32_t* line(std::byte* panel, int64_t i) const {
    return reinterpret_cast<uint32_t*>(panel + (i + idx + 1) * 64);
  }
};

struct Columns {
  int64_t begin, end;
};

// The columns of the matrix in lines [begin, end).
Columns ColumnsOf(const PackedMatrix& w, const Fp8Panel& panel, int64_t begin, int64_t end) {
  return {std::max<int64_t>(0, begin * kPerUnit - panel.lead), std::min(w.k, end * kPerUnit - panel.lead)};
}

template <typename Do>
void ForEachGroup(const Fp8Panel& panel, Do&& act) {
  int64_t begin = 0;
  for (int64_t idx = 0; idx < panel.num_groups; ++idx) {
    const int64_t lines = idx == 0 ? panel.first_lines : panel.group_lines;
    const int64_t end = std::min(panel.num_lines, begin + lines);
    act(Group{idx, begin, end});
    begin = end;
  }
}

template <typename Do>
void ForEachBand(const PackedMatrix& to, const Fp8Panel& panel, int64_t row_begin, int64_t num_rows,
                 Do&& act) {
  for (int64_t row = row_begin; row < row_begin + num_rows;) {
    const int64_t lane = row % kPanelRows;
    const int64_t lane_end = std::min(kPanelRows, lane + row_begin + num_rows - row);
    act(Band{lane, lane_end, to.data + row / kPanelRows * panel.bytes(), row - row_begin});
    row += lane_end - lane;
  }
}

// Codes of one group: `fill(lane, columns, codes)` writes those of a lane's columns.
template <typename Fill>
void WriteCodes(const PackedMatrix& to, const Fp8Panel& panel, const Band& band, const Group& group,
                Fill&& fill) {
  Units units;
  for (int64_t begin = group.begin; begin < group.end; begin += kStretch) {
    const int64_t end = std::min(group.end, begin + kStretch);
    const Columns columns = ColumnsOf(to, panel, begin, end);
    const bool padded = columns.end - columns.begin < (end - begin) * kPerUnit;
    for (int64_t lane = band.begin; lane < band.end; ++lane) {
      if (padded) std::memset(units.row[lane], 0, sizeof(units.row[lane]));
      fill(lane, columns,
           reinterpret_cast<uint8_t*>(units.row[lane]) + columns.begin + panel.lead - begin * kPerUnit);
    }
    Transpose<true>(units, end - begin, band.begin, band.end, group.line(band.panel, begin));
  }
}

// The smallest power of two that brings `largest` to 448 at most; its inverse is finite.
float ScaleFor(float largest) {
  if (largest == 0) return 1.0f;
  int exponent = 0;
  const float mantissa = std::frexp(largest, &exponent);  // in [0.5, 1); 448 = 0.875 * 2^9
  return std::ldexp(1.0f, std::max(exponent - 9 + (mantissa > 0.875f), -120));
}

// As bits, which order like the numbers; infinities and NaN do not count.
template <DType kType>
int32_t LargestMagnitude(const char* from, int64_t count) {
  int32_t largest = 0;
  for (int64_t i = 0; i < count; ++i) {
    const int32_t magnitude = std::bit_cast<int32_t>(ValueAt<kType>(from, i)) & 0x7FFFFFFF;
    largest = std::max(largest, magnitude & -(magnitude < 0x7F800000));
  }
  return largest;
}

template <DType kType>
void Quantize(const char* from, int64_t count, float factor, uint8_t* codes) {
  for (int64_t i = 0; i < count; ++i) codes[i] = FloatToFp8(ValueAt<kType>(from, i) * factor);
}

template <DType kType>
void QuantizeRowsOf(const PackedMatrix& to, int64_t row_begin, int64_t num_rows, const void* from,
                    int64_t row_stride) {
  const Fp8Panel panel = Fp8PanelOf(to);
  ForEachBand(to, panel, row_begin, num_rows, [&](const Band& band) {
    const auto source = [&](int64_t lane, int64_t column) {
      const int64_t row = band.first_row + lane - band.begin;
      return static_cast<const char*>(from) + (row * row_stride + column) * DTypeBytes(kType);
    };
    ForEachGroup(panel, [&](const Group& group) {
      const Columns all = ColumnsOf(to, panel, group.begin, group.end);
      float inverse[kPanelRows];
      for (int64_t lane = band.begin; lane < band.end; ++lane) {
        const int32_t largest = LargestMagnitude<kType>(source(lane, all.begin), all.end - all.begin);
        const float scale = ScaleFor(std::bit_cast<float>(largest));
        std::memcpy(group.scales(band.panel) + lane * 4, &scale, sizeof(scale));
        inverse[lane] = 1.0f / scale;
      }
      WriteCodes(to, panel, band, group, [&](int64_t lane, Columns columns, uint8_t* codes) {
        Quantize<kType>(source(lane, columns.begin), columns.end - columns.begin, inverse[lane], codes);
      });
    });
  });
}

}  // namespace

Fp8Panel Fp8PanelOf(const PackedMatrix& w) {
  CADRE_CHECK(w.scale_block % 4 == 0 && w.scale_phase >= 0 && w.scale_phase < std::max(1, w.scale_block));
  Fp8Panel panel{.lead = w.scale_phase % 4};
  panel.num_lines = (panel.lead + w.k + 3) / 4;
  panel.first_lines = panel.group_lines = panel.num_lines;
  if (w.scale_block == 0) return panel;
  panel.group_lines = w.scale_block / 4;
  panel.first_lines = (w.scale_block - w.scale_phase + panel.lead) / 4;
  const int64_t others = std::max<int64_t>(0, panel.num_lines - panel.first_lines);
  panel.num_groups = 1 + (others + panel.group_lines - 1) / panel.group_lines;
  return panel;
}

void QuantizeRows(const PackedMatrix& to, int64_t row_begin, int64_t num_rows, const void* from, DType type,
                  int64_t row_stride) {
  CADRE_CHECK(type == DType::kF32 || type == DType::kBf16 || type == DType::kF16);
  const auto quantize = type == DType::kF32    ? QuantizeRowsOf<DType::kF32>
                        : type == DType::kBf16 ? QuantizeRowsOf<DType::kBf16>
                                               : QuantizeRowsOf<DType::kF16>;
  quantize(to, row_begin, num_rows, from, row_stride);
}

void WriteFp8Rows(const PackedMatrix& to, int64_t row_begin, int64_t num_rows, const uint8_t* codes,
                  int64_t row_stride, const float* scales) {
  const Fp8Panel panel = Fp8PanelOf(to);
  ForEachBand(to, panel, row_begin, num_rows, [&](const Band& band) {
    const auto row_of = [&](int64_t lane) { return band.first_row + lane - band.begin; };
    ForEachGroup(panel, [&](const Group& group) {
      for (int64_t lane = band.begin; lane < band.end; ++lane) {
        std::memcpy(group.scales(band.panel) + lane * 4, scales + row_of(lane) * panel.num_groups + group.idx,
                    4);
      }
      WriteCodes(to, panel, band, group, [&](int64_t lane, Columns columns, uint8_t* units) {
        std::memcpy(units, codes + row_of(lane) * row_stride + columns.begin,
                    static_cast<size_t>(columns.end - columns.begin));
      });
    });
  });
}

void UnpackFp8Row(const PackedMatrix& from, int64_t row, float* to) {
  const Fp8Panel panel = Fp8PanelOf(from);
  const int64_t lane = row % kPanelRows;
  std::byte* bytes = from.data + row / kPanelRows * panel.bytes();
  ForEachGroup(panel, [&](const Group& group) {
    float scale = 0;
    std::memcpy(&scale, group.scales(bytes) + lane * 4, sizeof(scale));
    const Columns columns = ColumnsOf(from, panel, group.begin, group.end);
    for (int64_t column = columns.begin; column < columns.end; ++column) {
      const int64_t place = (column + panel.lead) % kPerUnit;
      const auto* line =
          reinterpret_cast<const std::byte*>(group.line(bytes, (column + panel.lead) / kPerUnit));
      const std::byte code = line[lane / 4 * 16 + place / 2 * 8 + lane % 4 * 2 + place % 2];
      to[column] = Fp8ToFloat(std::to_integer<uint8_t>(code)) * scale;
    }
  });
}

void ZeroFp8Lanes(const PackedMatrix& to, int64_t lane_begin) {
  const Fp8Panel panel = Fp8PanelOf(to);
  const Band band{lane_begin, kPanelRows, to.data + to.n / kPanelRows * panel.bytes(), 0};
  ForEachGroup(panel, [&](const Group& group) {
    std::memset(group.scales(band.panel) + lane_begin * 4, 0,
                static_cast<size_t>(kPanelRows - lane_begin) * 4);
    WriteCodes(to, panel, band, group, [](int64_t, Columns columns, uint8_t* codes) {
      std::memset(codes, 0, static_cast<size_t>(columns.end - columns.begin));
    });
  });
}

}  // namespace cadre::kernels
