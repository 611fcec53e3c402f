#include "kernels/pack.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <type_traits>
#include <vector>

#include "base/check.h"
#include "tensor/fp8.h"

namespace cadre::kernels {
namespace {

// Values of a row that are worked on at a time: 16 rows of them are 8 KiB at most, beside as much of the
// panel.
constexpr int64_t kStretch = 128;

// A stretch of 16 rows in the format of the panel, as 32-bit units: one f32, or a pair of bf16.
struct Units {
  alignas(64) uint32_t row[kPanelRows][kStretch];
};

// As tensor/dtype.h, without branches, so that it becomes vectors: the multiplication moves the exponent and
// makes subnormals normal, both exactly.
float HalfToFloatFlat(uint16_t h) {
  const uint32_t magnitude = uint32_t{h} << 13 & 0x0FFFE000;
  const uint32_t special = magnitude >= 0x0F800000 ? 0x7F800000 : 0;
  const uint32_t scaled = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) * 0x1p112f);
  return std::bit_cast<float>(scaled | special | (uint32_t{h} & 0x8000) << 16);
}

uint16_t ToBf16Flat(float f) {
  const uint32_t u = std::bit_cast<uint32_t>(f);
  const uint32_t rounded = (u + 0x7FFF + (u >> 16 & 1)) >> 16, nan = u >> 16 | 0x40;
  return static_cast<uint16_t>((u & 0x7FFFFFFF) > 0x7F800000 ? nan : rounded);
}

template <DType kType, PackFormat kFormat>
void Convert(const char* from, int64_t count, uint32_t* units) {
  using Source = std::conditional_t<kType == DType::kF32, float, uint16_t>;
  using Target = std::conditional_t<kFormat == PackFormat::kF32, float, uint16_t>;
  if constexpr ((kType == DType::kF32) == (kFormat == PackFormat::kF32) && kType != DType::kF16) {
    std::memcpy(units, from, static_cast<size_t>(count) * sizeof(Target));
  } else {
    Source source[kStretch];  // files align tensors to nothing
    Target target[kStretch];
    std::memcpy(source, from, static_cast<size_t>(count) * sizeof(Source));
    for (int64_t i = 0; i < count; ++i) {
      float value;
      if constexpr (kType == DType::kF32) {
        value = source[i];
      } else if constexpr (kType == DType::kF16) {
        value = HalfToFloatFlat(source[i]);
      } else {
        value = ToFloat(Bf16{source[i]});
      }
      if constexpr (kFormat == PackFormat::kF32) {
        target[i] = value;
      } else {
        target[i] = ToBf16Flat(value);
      }
    }
    std::memcpy(units, target, static_cast<size_t>(count) * sizeof(Target));
  }
  if (count % 2 == 1) {  // only the last stretch of a row: k is padded to 2
    std::memset(reinterpret_cast<char*>(units) + static_cast<size_t>(count) * sizeof(Target), 0,
                sizeof(Target));
  }
}

// Line i of the panel is unit i of the 16 rows.
void TransposeAll(const Units& units, int64_t num_lines, uint32_t* panel) {
  using Four = uint32_t __attribute__((vector_size(16)));
  const auto load = [&](int64_t row, int64_t unit) {
    Four v;
    std::memcpy(&v, &units.row[row][unit], sizeof(v));
    return v;
  };
  for (int64_t i = 0; i + 4 <= num_lines; i += 4) {
    for (int64_t row = 0; row < kPanelRows; row += 4) {
      const Four a = load(row, i), b = load(row + 1, i), c = load(row + 2, i), d = load(row + 3, i);
      const Four ab_low = __builtin_shufflevector(a, b, 0, 4, 1, 5),
                 ab_high = __builtin_shufflevector(a, b, 2, 6, 3, 7);
      const Four cd_low = __builtin_shufflevector(c, d, 0, 4, 1, 5),
                 cd_high = __builtin_shufflevector(c, d, 2, 6, 3, 7);
      const Four lines[4] = {__builtin_shufflevector(ab_low, cd_low, 0, 1, 4, 5),
                             __builtin_shufflevector(ab_low, cd_low, 2, 3, 6, 7),
                             __builtin_shufflevector(ab_high, cd_high, 0, 1, 4, 5),
                             __builtin_shufflevector(ab_high, cd_high, 2, 3, 6, 7)};
      for (int64_t j = 0; j < 4; ++j)
        std::memcpy(panel + (i + j) * kPanelRows + row, &lines[j], sizeof(Four));
    }
  }
}

void TransposeRows(const Units& units, int64_t line_begin, int64_t num_lines, int64_t lane_begin,
                   int64_t lane_end, uint32_t* panel) {
  for (int64_t lane = lane_begin; lane < lane_end; ++lane) {
    for (int64_t i = line_begin; i < num_lines; ++i) panel[i * kPanelRows + lane] = units.row[lane][i];
  }
}

int64_t PanelBytes(const PackedMatrix& w) {
  if (IsFp8(w.format)) return Fp8PanelOf(w).bytes();
  return RoundUp(w.k, 2) * kPanelRows * (w.format == PackFormat::kBf16 ? 2 : 4);
}

template <DType kType, PackFormat kFormat>
void PackRowsOf(const PackedMatrix& to, int64_t row_begin, int64_t num_rows, const void* from,
                int64_t row_stride) {
  constexpr int64_t kPerUnit = kFormat == PackFormat::kBf16 ? 2 : 1;
  Units units;
  const int64_t panel_bytes = PanelBytes(to), row_end = row_begin + num_rows;
  for (int64_t row = row_begin; row < row_end;) {
    const int64_t lane = row % kPanelRows, lane_end = std::min(kPanelRows, lane + row_end - row);
    const char* source = static_cast<const char*>(from) + (row - row_begin) * row_stride * DTypeBytes(kType);
    for (int64_t k = 0; k < to.k; k += kStretch) {
      const int64_t count = std::min(kStretch, to.k - k), num_lines = RoundUp(count, 2) / kPerUnit;
      for (int64_t l = lane; l < lane_end; ++l) {
        Convert<kType, kFormat>(source + ((l - lane) * row_stride + k) * DTypeBytes(kType), count,
                                units.row[l]);
      }
      auto* panel =
          reinterpret_cast<uint32_t*>(to.data + row / kPanelRows * panel_bytes) + k / kPerUnit * kPanelRows;
      const bool all = lane_end - lane == kPanelRows;
      if (all) TransposeAll(units, num_lines, panel);
      TransposeRows(units, all ? num_lines / 4 * 4 : 0, num_lines, lane, lane_end, panel);
    }
    row += lane_end - lane;
  }
}

// `codes` [num_lines * 4] with the columns in front, `scales` [num_groups].
void WriteFp8Row(const PackedMatrix& to, const Fp8Panel& shape, int64_t row, const uint8_t* codes,
                 const float* scales) {
  const int64_t lane = row % kPanelRows;
  std::byte* line = to.data + row / kPanelRows * shape.bytes();
  int64_t group_end = 0;
  for (int64_t i = 0; i < shape.num_lines; ++i) {
    if (i == group_end) {
      std::memcpy(line + lane * 4, scales++, 4);
      line += 64;
      group_end += i == 0 ? shape.first_lines : shape.group_lines;
    }
    std::byte* place = line + lane / 4 * 16 + lane % 4 * 2;
    std::memcpy(place, codes + i * 4, 2);
    std::memcpy(place + 8, codes + i * 4 + 2, 2);
    line += 64;
  }
}

// The smallest power of two that brings `largest` to 448 at most; its inverse is finite.
float ScaleFor(float largest) {
  int exponent = 0;
  const float mantissa = std::frexp(largest, &exponent);  // in [0.5, 1); 448 = 0.875 * 2^9
  return std::ldexp(1.0f, std::max(exponent - 9 + (mantissa > 0.875f), -120));
}

void QuantizeRow(const float* values, const Fp8Panel& panel, uint8_t* codes, float* scales) {
  int64_t begin = 0;
  for (int64_t group = 0; group < panel.num_groups; ++group) {
    const int64_t lines = begin + (group == 0 ? panel.first_lines : panel.group_lines);
    const int64_t end = std::min(panel.num_lines, lines);
    uint32_t largest = 0;  // as bits, which order like the numbers; infinities and NaN do not count
    for (int64_t i = begin * 4; i < end * 4; ++i) {
      const uint32_t magnitude = std::bit_cast<uint32_t>(values[i]) & 0x7FFFFFFF;
      largest = std::max(largest, magnitude >= 0x7F800000 ? 0 : magnitude);
    }
    scales[group] = largest == 0 ? 1.0f : ScaleFor(std::bit_cast<float>(largest));
    const float inverse = 1.0f / scales[group];
    for (int64_t i = begin * 4; i < end * 4; ++i) codes[i] = FloatToFp8(values[i] * inverse);
    begin = end;
  }
}

template <DType kType>
void QuantizeRowsOf(const PackedMatrix& to, int64_t row_begin, int64_t num_rows, const void* from,
                    int64_t row_stride) {
  const Fp8Panel panel = Fp8PanelOf(to);
  std::vector<float> values(static_cast<size_t>(panel.num_lines * 4)),
      scales(static_cast<size_t>(panel.num_groups));
  std::vector<uint8_t> codes(values.size());
  for (int64_t row = 0; row < num_rows; ++row) {
    const char* source = static_cast<const char*>(from) + row * row_stride * DTypeBytes(kType);
    for (int64_t k = 0; k < to.k; k += kStretch) {
      uint32_t stretch[kStretch];
      const int64_t count = std::min(kStretch, to.k - k);
      Convert<kType, PackFormat::kF32>(source + k * DTypeBytes(kType), count, stretch);
      std::memcpy(values.data() + panel.lead + k, stretch, static_cast<size_t>(count) * 4);
    }
    QuantizeRow(values.data(), panel, codes.data(), scales.data());
    WriteFp8Row(to, panel, row_begin + row, codes.data(), scales.data());
  }
}

void UnpackFp8Row(const PackedMatrix& from, int64_t row, float* to) {
  const Fp8Panel shape = Fp8PanelOf(from);
  const int64_t lane = row % kPanelRows;
  const std::byte* line = from.data + row / kPanelRows * shape.bytes();
  int64_t group_end = 0;
  float scale = 0;
  for (int64_t i = 0; i < shape.num_lines; ++i, line += 64) {
    if (i == group_end) {
      std::memcpy(&scale, line + lane * 4, 4);
      line += 64;
      group_end += i == 0 ? shape.first_lines : shape.group_lines;
    }
    for (int64_t k = 0; k < 4; ++k) {
      const int64_t column = i * 4 + k - shape.lead;
      if (column < 0 || column >= from.k) continue;
      const auto code = std::to_integer<uint8_t>(line[lane / 4 * 16 + k / 2 * 8 + lane % 4 * 2 + k % 2]);
      to[column] = Fp8ToFloat(code) * scale;
    }
  }
}

template <DType kType>
void PackRowsOf(const PackedMatrix& to, int64_t row_begin, int64_t num_rows, const void* from,
                int64_t row_stride) {
  if (IsFp8(to.format)) {
    QuantizeRowsOf<kType>(to, row_begin, num_rows, from, row_stride);
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

void ZeroFp8Lanes(const PackedMatrix& to, int64_t lane_begin) {
  const Fp8Panel panel = Fp8PanelOf(to);
  const std::vector<uint8_t> codes(static_cast<size_t>(panel.num_lines * 4));
  const std::vector<float> scales(static_cast<size_t>(panel.num_groups));
  for (int64_t lane = lane_begin; lane < kPanelRows; ++lane)
    WriteFp8Row(to, panel, to.n / kPanelRows * kPanelRows + lane, codes.data(), scales.data());
}

// Once the last row is there.
void ZeroPadding(const PackedMatrix& to, int64_t row_end) {
  if (row_end != to.n || to.n % kPanelRows == 0) return;
  IsFp8(to.format) ? ZeroFp8Lanes(to, to.n % kPanelRows) : ZeroLanes(to, to.n % kPanelRows);
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
}

void PackScaledRows(const PackedMatrix& to, int64_t row_begin, int64_t num_rows, const uint8_t* codes,
                    int64_t row_stride, const float* scales) {
  CADRE_CHECK(IsFp8(to.format) && row_begin >= 0 && num_rows >= 0 && row_begin + num_rows <= to.n);
  const Fp8Panel panel = Fp8PanelOf(to);
  std::vector<uint8_t> padded(static_cast<size_t>(panel.num_lines * 4));
  for (int64_t row = 0; row < num_rows; ++row) {
    std::memcpy(padded.data() + panel.lead, codes + row * row_stride, static_cast<size_t>(to.k));
    WriteFp8Row(to, panel, row_begin + row, padded.data(), scales + row * panel.num_groups);
  }
  ZeroPadding(to, row_begin + num_rows);
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
