#include "model/weight_sink.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <tuple>

#include "base/check.h"
#include "tensor/fp8.h"

namespace cadre::model {
namespace {

using kernels::kPanelRows;

// A task's buffer stays in the second-level cache between the read and the packing.
constexpr int64_t kTaskBytes = 512 << 10;
// Below this a row's columns are not worth a read of their own: whole rows are read instead.
constexpr int64_t kMinReadBytes = 2048;

int64_t ElementBytes(const TensorPart& part) {
  return DTypeBytes(part.tensor->dtype);
}

// Bytes that one row of a part costs to read.
int64_t ReadBytesPerRow(const WeightFill& fill, const TensorPart& part) {
  const int64_t wanted = fill.num_cols * ElementBytes(part);
  return wanted >= kMinReadBytes ? wanted : part.width * ElementBytes(part);
}

int64_t NumRows(const WeightFill& fill) {
  int64_t rows = 0;
  for (const TensorPart& part : fill.parts) rows += part.num_rows;
  return rows;
}

int64_t CeilDiv(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

float ReadElement(const std::byte* from, DType type, int64_t idx) {
  if (type == DType::kF32) {
    float value;
    std::memcpy(&value, from + idx * 4, 4);
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, from + idx * 2, 2);
  return type == DType::kBf16 ? ToFloat(Bf16{bits}) : HalfToFloat(bits);
}

void Convert(const std::byte* from, DType from_type, int64_t count, void* to, DType to_type) {
  if (from_type == to_type) {
    std::memcpy(to, from, static_cast<size_t>(count * DTypeBytes(to_type)));
  } else if (to_type == DType::kF32) {
    for (int64_t i = 0; i < count; ++i) static_cast<float*>(to)[i] = ReadElement(from, from_type, i);
  } else {
    for (int64_t i = 0; i < count; ++i) static_cast<Bf16*>(to)[i] = ToBf16(ReadElement(from, from_type, i));
  }
}

template <typename Element>
void Turn(const std::byte* from, int64_t stride, int64_t rows, int64_t cols, std::byte* to) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) {
      std::memcpy(to + (c * rows + r) * static_cast<int64_t>(sizeof(Element)),
                  from + (r * stride + c) * static_cast<int64_t>(sizeof(Element)), sizeof(Element));
    }
  }
}

}  // namespace

WeightSink::WeightSink(const WeightMap& map, const checkpoint::TensorSource& source, Filter filter)
    : map_(map), source_(source) {
  for (size_t i = 0; i < map.fills.size(); ++i) {
    if (map.fills[i].expert ? filter.experts : filter.dense) Cut(i);
  }
  // Rising order within a file is what read-ahead is made for.
  const auto place = [&](const Task& task) {
    const checkpoint::TensorInfo& tensor = *map.fills[task.fill].parts.front().tensor;
    return std::tuple(tensor.file, tensor.offset, task.fill, task.begin);
  };
  std::sort(tasks_.begin(), tasks_.end(), [&](const Task& a, const Task& b) { return place(a) < place(b); });
}

void WeightSink::Cut(size_t fill_idx) {
  const WeightFill& fill = map_.fills[fill_idx];
  source_bytes_ += fill.source_bytes();
  int64_t num_steps = 1, rows_per_step = 1, row_bytes = 0;
  for (const TensorPart& part : fill.parts) row_bytes = std::max(row_bytes, ReadBytesPerRow(fill, part));
  switch (fill.kind) {
    case FillKind::kRows:
      num_steps = CeilDiv(NumRows(fill), kPanelRows);
      rows_per_step = kPanelRows;
      break;
    case FillKind::kGateUpPanels:
      num_steps = CeilDiv(fill.parts[0].num_rows, kPanelRows);
      rows_per_step = 2 * kPanelRows;
      break;
    case FillKind::kTable:
      num_steps = NumRows(fill);
      break;
    case FillKind::kTransposed:
    case FillKind::kVector:
      break;
  }
  const int64_t steps_per_task =
      std::max<int64_t>(1, kTaskBytes / std::max<int64_t>(1, rows_per_step * row_bytes));
  for (int64_t begin = 0; begin < num_steps; begin += steps_per_task) {
    tasks_.push_back({fill_idx, begin, std::min(num_steps, begin + steps_per_task)});
  }
}

Result<WeightSink::Rows> WeightSink::ReadRows(const TensorPart& part, int64_t num_cols, int64_t row,
                                              int64_t num_rows, std::vector<std::byte>& to) const {
  const int64_t element = ElementBytes(part), wanted = num_cols * element, width = part.width * element;
  const int64_t begin = (part.row_begin + row) * width + part.col_begin * element;
  const int64_t all = (num_rows - 1) * width + wanted;
  const std::byte* const view = source_.View(*part.tensor, begin, all);
  if (view != nullptr && reinterpret_cast<uintptr_t>(view) % static_cast<uintptr_t>(element) == 0)
    return Rows{view, part.width};
  const bool whole = num_cols == part.width;
  const bool row_by_row = !whole && wanted >= kMinReadBytes;
  const int64_t span = row_by_row ? num_rows * wanted : all;
  if (static_cast<int64_t>(to.size()) < span) to.resize(static_cast<size_t>(span));
  if (row_by_row) {
    for (int64_t r = 0; r < num_rows; ++r) {
      CADRE_TRY(source_.Read(*part.tensor, begin + r * width, wanted, to.data() + r * wanted));
    }
    return Rows{to.data(), num_cols};
  }
  CADRE_TRY(source_.Read(*part.tensor, begin, span, to.data()));
  return Rows{to.data(), part.width};
}

Result<const float*> WeightSink::ReadScales(const TensorPart& part, int64_t row, int64_t num_rows,
                                            int64_t& first, Scratch& scratch) const {
  first = (part.row_begin + row) / part.scale_rows;
  const int64_t last = (part.row_begin + row + num_rows - 1) / part.scale_rows;
  const int64_t count = (last - first + 1) * part.scale_width, element = DTypeBytes(part.scale->dtype);
  scratch.scale_bytes.resize(static_cast<size_t>(count * element));
  scratch.scales.resize(static_cast<size_t>(count));
  CADRE_TRY(source_.Read(*part.scale, first * part.scale_width * element, count * element,
                         scratch.scale_bytes.data()));
  Convert(scratch.scale_bytes.data(), part.scale->dtype, count, scratch.scales.data(), DType::kF32);
  for (const float scale : scratch.scales) {
    if (std::isfinite(scale)) continue;
    return Fail(Code::kDataLoss, "{}: tensor '{}' has a scale of {}", source_.FileOf(*part.scale),
                part.scale->name, scale);
  }
  return scratch.scales.data();
}

Result<WeightSink::Rows> WeightSink::Dequantize(const WeightFill& fill, const TensorPart& part,
                                                const Rows& rows, int64_t row, int64_t num_rows,
                                                Scratch& scratch) const {
  int64_t first = 0;
  CADRE_ASSIGN(const float* const scales, ReadScales(part, row, num_rows, first, scratch));
  scratch.values.resize(static_cast<size_t>(num_rows * fill.num_cols));
  for (int64_t r = 0; r < num_rows; ++r) {
    const float* of_row = scales + ((part.row_begin + row + r) / part.scale_rows - first) * part.scale_width;
    for (int64_t c = 0; c < fill.num_cols; ++c) {
      const auto code = std::to_integer<uint8_t>(rows.data[r * rows.stride + c]);
      scratch.values[static_cast<size_t>(r * fill.num_cols + c)] =
          Fp8ToFloat(code) * of_row[(part.col_begin + c) / part.scale_cols];
    }
  }
  return Rows{reinterpret_cast<const std::byte*>(scratch.values.data()), fill.num_cols};
}

Status WeightSink::PackRead(const WeightFill& fill, const TensorPart& part, const Rows& rows, int64_t row,
                            int64_t num_rows, int64_t to_row, Scratch& scratch) const {
  if (part.tensor->dtype != DType::kF8E4M3) {
    kernels::PackRows(fill.matrix, to_row, num_rows, rows.data, part.tensor->dtype, rows.stride);
    return {};
  }
  if (!kernels::IsFp8(fill.matrix.format)) {
    CADRE_ASSIGN(const Rows numbers, Dequantize(fill, part, rows, row, num_rows, scratch));
    kernels::PackRows(fill.matrix, to_row, num_rows, numbers.data, DType::kF32, numbers.stride);
    return {};
  }
  int64_t first = 0;
  CADRE_ASSIGN(const float* const scales, ReadScales(part, row, num_rows, first, scratch));
  const int64_t num_groups = kernels::Fp8PanelOf(fill.matrix).num_groups;
  CADRE_CHECK(part.col_begin / part.scale_cols + num_groups <= part.scale_width &&
              (fill.matrix.scale_block == 0 || fill.matrix.scale_phase == part.col_begin % part.scale_cols));
  scratch.values.resize(static_cast<size_t>(num_rows * num_groups));
  for (int64_t r = 0; r < num_rows; ++r) {
    const float* of_row = scales + ((part.row_begin + row + r) / part.scale_rows - first) * part.scale_width;
    std::copy_n(of_row + part.col_begin / part.scale_cols, num_groups,
                scratch.values.data() + r * num_groups);
  }
  kernels::PackScaledRows(fill.matrix, to_row, num_rows, reinterpret_cast<const uint8_t*>(rows.data),
                          rows.stride, scratch.values.data());
  return {};
}

Result<int64_t> WeightSink::PackPart(const WeightFill& fill, const TensorPart& part, int64_t row,
                                     int64_t num_rows, int64_t to_row, Scratch& scratch) const {
  CADRE_ASSIGN(const Rows rows, ReadRows(part, fill.num_cols, row, num_rows, scratch.bytes));
  CADRE_TRY(PackRead(fill, part, rows, row, num_rows, to_row, scratch));
  return num_rows * fill.num_cols * ElementBytes(part);
}

Result<int64_t> WeightSink::RunRows(const WeightFill& fill, const Task& task, Scratch& scratch) const {
  const int64_t begin = task.begin * kPanelRows, end = std::min(task.end * kPanelRows, fill.matrix.n);
  int64_t part_begin = 0, done = 0;
  for (const TensorPart& part : fill.parts) {
    const int64_t from = std::max(begin, part_begin), to = std::min(end, part_begin + part.num_rows);
    if (from < to) {
      CADRE_ASSIGN(const int64_t n, PackPart(fill, part, from - part_begin, to - from, from, scratch));
      done += n;
    }
    part_begin += part.num_rows;
  }
  return done;
}

Result<int64_t> WeightSink::RunGateUp(const WeightFill& fill, const Task& task, Scratch& scratch) const {
  int64_t done = 0;
  for (int64_t which = 0; which < 2; ++which) {
    const TensorPart& part = fill.parts[static_cast<size_t>(which)];
    const int64_t begin = task.begin * kPanelRows, end = std::min(task.end * kPanelRows, part.num_rows);
    CADRE_ASSIGN(const Rows rows, ReadRows(part, fill.num_cols, begin, end - begin, scratch.bytes));
    for (int64_t row = begin; row < end; row += kPanelRows) {
      const int64_t num_rows = std::min(kPanelRows, end - row);
      const Rows panel{rows.data + (row - begin) * rows.stride * ElementBytes(part), rows.stride};
      CADRE_TRY(PackRead(fill, part, panel, row, num_rows, 2 * row + which * kPanelRows, scratch));
    }
    done += (end - begin) * fill.num_cols * ElementBytes(part);
  }
  return done;
}

Result<int64_t> WeightSink::RunTransposed(const WeightFill& fill, Scratch& scratch) const {
  const TensorPart& part = fill.parts.front();
  CADRE_ASSIGN(Rows rows, ReadRows(part, fill.num_cols, 0, part.num_rows, scratch.bytes));
  DType type = part.tensor->dtype;
  if (type == DType::kF8E4M3) {
    CADRE_ASSIGN(rows, Dequantize(fill, part, rows, 0, part.num_rows, scratch));
    type = DType::kF32;
  }
  const int64_t count = part.num_rows * fill.num_cols;
  scratch.turned.resize(std::max(scratch.turned.size(), static_cast<size_t>(count * DTypeBytes(type))));
  const auto turn = DTypeBytes(type) == 4 ? Turn<uint32_t> : Turn<uint16_t>;
  turn(rows.data, rows.stride, part.num_rows, fill.num_cols, scratch.turned.data());
  kernels::PackRows(fill.matrix, 0, fill.num_cols, scratch.turned.data(), type, part.num_rows);
  return count * ElementBytes(part);
}

Result<int64_t> WeightSink::RunPlain(const WeightFill& fill, const Task& task, Scratch& scratch) const {
  auto* to = static_cast<std::byte*>(fill.plain);
  const int64_t row_bytes = fill.num_cols * DTypeBytes(fill.type);
  int64_t done = 0, part_begin = 0;
  const bool whole = fill.kind == FillKind::kVector;
  for (const TensorPart& part : fill.parts) {
    const int64_t begin = whole ? 0 : task.begin, num_rows = whole ? part.num_rows : task.end - task.begin;
    std::byte* place = to + (part_begin + begin) * row_bytes;
    if (part.tensor->dtype == fill.type && fill.num_cols == part.width) {
      CADRE_TRY(
          source_.Read(*part.tensor, (part.row_begin + begin) * row_bytes, num_rows * row_bytes, place));
    } else {
      CADRE_ASSIGN(const Rows rows, ReadRows(part, fill.num_cols, begin, num_rows, scratch.bytes));
      Convert(rows.data, part.tensor->dtype, num_rows * fill.num_cols, place, fill.type);
    }
    done += num_rows * fill.num_cols * ElementBytes(part);
    part_begin += part.num_rows;
  }
  return done;
}

Result<int64_t> WeightSink::Run(int64_t task_idx, Scratch& scratch) {
  const Task& task = tasks_[static_cast<size_t>(task_idx)];
  const WeightFill& fill = map_.fills[task.fill];
  Result<int64_t> done = 0;
  switch (fill.kind) {
    case FillKind::kRows:
      done = RunRows(fill, task, scratch);
      break;
    case FillKind::kGateUpPanels:
      done = RunGateUp(fill, task, scratch);
      break;
    case FillKind::kTransposed:
      done = RunTransposed(fill, scratch);
      break;
    case FillKind::kTable:
    case FillKind::kVector:
      done = RunPlain(fill, task, scratch);
      break;
  }
  if (done) num_done_.fetch_add(1, std::memory_order_relaxed);
  return done;
}

Status WeightSink::Commit(ModelWeights& weights, int64_t generation) const {
  if (num_done_.load() != num_tasks()) {
    return Fail(Code::kInternal, "{} of {} parts of the weights are in place", num_done_.load(), num_tasks());
  }
  CADRE_TRY(source_.CheckViews());
  weights.generation = generation;
  return {};
}

}  // namespace cadre::model
