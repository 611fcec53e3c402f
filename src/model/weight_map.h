#pragma once
// From the names in a checkpoint to places: which rows and columns of which tensors make up each weight of
// this rank.
//
// The list is made from the places' side: a fill is one place and the tensor parts that it is put together
// from. So every weight is there exactly once, a missing tensor is found before anything is read, and no two
// fills touch the same bytes.
#include <cstdint>
#include <vector>

#include "base/error.h"
#include "checkpoint/source.h"
#include "model/weight_plan.h"

namespace cadre::model {

/// Rows of a tensor seen as [rows, width], all its leading dimensions being rows. Which columns is the fill's
/// matter.
struct TensorPart {
  const checkpoint::TensorInfo* tensor = nullptr;
  int64_t width = 1;
  int64_t row_begin = 0, num_rows = 0;
  int64_t col_begin = 0;
  /// Of an fp8 tensor: the scale of (row, col) is element [row / scale_rows, col / scale_cols] of `scale`,
  /// seen as rows of `scale_width`.
  const checkpoint::TensorInfo* scale = nullptr;
  int64_t scale_rows = 1, scale_cols = 1, scale_width = 1;
};

enum class FillKind : uint8_t {
  kRows,          ///< the parts' rows, one below the other, packed
  kGateUpPanels,  ///< parts {gate, up}: panels of 16 gate rows and 16 up rows in turn, packed
  kTransposed,    ///< one part [k, n]: its columns become rows, packed
  kTable,         ///< the parts' rows as plain rows of `type`
  kVector,        ///< the parts' rows (width 1) as f32
};

struct WeightFill {
  FillKind kind = FillKind::kRows;
  bool expert = false;       ///< lies in the experts' arena
  PackedMatrix matrix = {};  ///< kRows, kGateUpPanels, kTransposed
  void* plain = nullptr;     ///< kTable, kVector
  DType type = DType::kF32;  ///< of `plain`
  int64_t num_cols = 1;      ///< taken from every row of every part
  std::vector<TensorPart> parts = {};

  int64_t source_bytes() const;  ///< read from the tensors
};

struct WeightMap {
  std::vector<WeightFill> fills;
  int64_t num_activation_scales = 0;  ///< of an fp8 checkpoint: tensors that nothing asks for, on purpose
  int64_t source_bytes = 0;
  std::vector<const checkpoint::TensorInfo*> unknown;  ///< tensors that nothing asks for
  int64_t num_future_layers =
      0;  ///< tensors of layers past the last one (multi-token prediction): left out on purpose
};

/// `weights` comes from PlaceWeights with the same spec and plan. Errors: kNotFound (a tensor is missing),
/// kDataLoss (unexpected shape), kUnsupported (its type cannot be read): one message with file, tensor,
/// wanted and found.
Result<WeightMap> MapWeights(const ModelSpec& spec, const WeightPlan& plan, const ModelWeights& weights,
                             const checkpoint::TensorSource& source);

}  // namespace cadre::model
