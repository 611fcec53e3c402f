#pragma once
// The one door through which weights enter their places, whatever brings them: a checkpoint on disk, an
// update from a trainer. It cuts the fills of a WeightMap into tasks of about half a MiB; a task packs rows
// of the source into place, from where they lie in memory or from a small buffer that they are read into. No
// two tasks touch the same panel, so any number of threads may run them.
//
// Weights count only once Commit has given them their generation: all of them, or none.
#include <atomic>
#include <cstdint>
#include <vector>

#include "base/error.h"
#include "checkpoint/source.h"
#include "model/weight_map.h"

namespace cadre::model {

class WeightSink {
 public:
  struct Filter {
    bool dense = true;    ///< fill the dense arena (false on a rank that shares another's)
    bool experts = true;  ///< fill the experts' arena
  };
  /// `map` and `source` must outlive the sink.
  WeightSink(const WeightMap& map, const checkpoint::TensorSource& source, Filter filter);

  /// A thread's own memory, kept from task to task.
  struct Scratch {
    std::vector<std::byte> bytes, turned, scale_bytes;
    std::vector<float> scales, values;
  };

  int64_t num_tasks() const { return static_cast<int64_t>(tasks_.size()); }
  int64_t source_bytes() const { return source_bytes_; }  ///< that all tasks together read

  /// Runs one task; tasks are in the order of the files. Any thread, each task once. Returns the bytes read.
  /// Errors: those of the source.
  Result<int64_t> Run(int64_t task, Scratch& scratch);

  /// Gives `weights` their generation. Errors: kInternal unless every task has run; kDataLoss if the source
  /// has changed meanwhile.
  Status Commit(ModelWeights& weights, int64_t generation) const;

 private:
  /// Steps [begin, end) of a fill: panels of 16 rows (kRows), pairs of panels (kGateUpPanels), rows (kTable),
  /// or all.
  struct Task {
    size_t fill = 0;
    int64_t begin = 0, end = 0;
  };
  struct Rows {
    const std::byte* data = nullptr;
    int64_t stride = 0;  ///< elements
  };

  void Cut(size_t fill_idx);
  Result<Rows> ReadRows(const TensorPart& part, int64_t num_cols, int64_t row, int64_t num_rows,
                        std::vector<std::byte>& to) const;
  /// Scales of rows [row, row + num_rows) of an fp8 part, [rows of scales][part.scale_width]; `first` is the
  /// first of those rows.
  Result<const float*> ReadScales(const TensorPart& part, int64_t row, int64_t num_rows, int64_t& first,
                                  Scratch& scratch) const;
  /// Packs rows that ReadRows brought, of whatever type, as rows from `to_row` on.
  Status PackRead(const WeightFill& fill, const TensorPart& part, const Rows& rows, int64_t row,
                  int64_t num_rows, int64_t to_row, Scratch& scratch) const;
  /// The numbers of an fp8 part's rows, without gaps, in scratch.values.
  Result<Rows> Dequantize(const WeightFill& fill, const TensorPart& part, const Rows& rows, int64_t row,
                          int64_t num_rows, Scratch& scratch) const;
  Result<int64_t> PackPart(const WeightFill& fill, const TensorPart& part, int64_t row, int64_t num_rows,
                           int64_t to_row, Scratch& scratch) const;
  Result<int64_t> RunRows(const WeightFill& fill, const Task& task, Scratch& scratch) const;
  Result<int64_t> RunGateUp(const WeightFill& fill, const Task& task, Scratch& scratch) const;
  Result<int64_t> RunTransposed(const WeightFill& fill, Scratch& scratch) const;
  Result<int64_t> RunPlain(const WeightFill& fill, const Task& task, Scratch& scratch) const;

  const WeightMap& map_;
  const checkpoint::TensorSource& source_;
  std::vector<Task> tasks_;
  int64_t source_bytes_ = 0;
  std::atomic<int64_t> num_done_ = 0;
};

}  // namespace cadre::model
