#pragma once
// Builds a rank's row table from everybody's choices, and remembers where each source row's results will lie.
// Two passes over the choices in (source, row, k) order, so the table is ordered by (slot, source, row) and
// the results of one row are found in rising k.
#include <cstdint>
#include <span>
#include <vector>

#include "a2a/a2a.h"

namespace cadre::a2a {

/// What one rank published.
struct Source {
  const std::byte* rows = nullptr;  ///< [num_rows] rows of row_bytes
  const int32_t* slots = nullptr;   ///< [num_rows, top_k]
  const float* weights = nullptr;   ///< [num_rows, top_k]; null: all 1
  int64_t num_rows = 0;
  bool listed = false;                 ///< only the rows in `list` are looked at
  std::span<const int32_t> list = {};  ///< rising; every row has a local choice

  int64_t num_entries() const { return listed ? static_cast<int64_t>(list.size()) : num_rows; }
  int64_t Row(int64_t entry) const { return listed ? list[static_cast<size_t>(entry)] : entry; }
};

class RowTableBuilder {
 public:
  /// Slots [first_slot, first_slot + num_slots) of total_slots are local.
  RowTableBuilder(int32_t top_k, int64_t row_bytes, int32_t first_slot, int32_t num_slots,
                  int32_t total_slots);

  /// Errors: kDataLoss for a slot or a listed row that does not exist, or a listed row without a local
  /// choice. Buffers only grow, so a steady state allocates nothing.
  Status Build(std::span<const Source> sources);
  /// The same where the offsets of the table [local slots + 1] are known from counts; kDataLoss if other rows
  /// come than were counted.
  Status Build(std::span<const Source> sources, std::span<const int32_t> offsets);

  RowTable table() const;
  /// Places in the table of source row (source, row), in rising k; empty if no choice of it is local. For a
  /// listed source `row` is the place in its list.
  std::span<const int32_t> PlacesOf(int source, int64_t row) const;
  /// Rows of `source` that have at least one local choice, rising.
  std::span<const int32_t> TouchedRows(int source) const;
  /// Where the rows of `source` begin in the table, for each local slot.
  std::span<const int32_t> BeginsOf(int source) const {
    return std::span(begins_).subspan(static_cast<size_t>(source) * static_cast<size_t>(num_slots_),
                                      static_cast<size_t>(num_slots_));
  }

 private:
  Status Count(std::span<const Source> sources);
  Status Fill(std::span<const Source> sources);
  void MakeRoom(std::span<const Source> sources);
  template <typename Fn>
  int ForLocalChoices(const Source& source, int64_t t, const Fn& choice) const;
  Status WhatIsWrong(size_t source_idx, const Source& source, int64_t t) const;

  int32_t top_k_;
  int64_t row_bytes_;
  int32_t first_slot_, num_slots_, total_slots_;
  std::vector<int32_t> offsets_, cursor_;
  std::vector<int32_t> begins_;  // [sources, local slots]
  std::vector<const void*> rows_;
  std::vector<float> weights_;
  std::vector<int32_t> places_;        // all sources' places, in (source, row, k) order
  std::vector<int32_t> place_begin_;   // [all rows + 1]
  std::vector<int64_t> source_begin_;  // [sources + 1] first row of each source in place_begin_
  std::vector<int32_t> touched_;       // rows with a local choice, source by source
  std::vector<size_t> touched_begin_;  // [sources + 1]
};

}  // namespace cadre::a2a
