#pragma once
// Which rows have partial sums where, in a group over hosts. Everything follows from the choices that all
// ranks see, so nothing about it is sent.
//
// A host that computes for a row of another host sends one row home, the sum over its ranks. Those for one
// home host lie in (home rank, row) order; the home host knows from its lists which these are.
#include <cstdint>
#include <span>
#include <vector>

#include "a2a/a2a.h"
#include "a2a/row_table.h"
#include "fabric/fabric.h"

namespace cadre::a2a {

/// The ranks of `range` that have a choice of one row, bit i for member range.begin + i.
uint64_t RanksOfRow(const eplb::SlotLayout& layout, fabric::MemberRange range,
                    std::span<const int32_t> slots);

/// The sending side: rows of one other host that ranks of this host compute for.
class HostRows {
 public:
  struct Row {
    int32_t home;  ///< member
    int32_t row;   ///< of it
  };
  /// `sources` of all members; `from` the other host's members, `here` this one's. With `all` also the rows
  /// that nobody here computes for: every rank then has a partial sum for each row, at the row's own place.
  void Build(const eplb::SlotLayout& layout, int32_t top_k, std::span<const Source> sources,
             fabric::MemberRange from, fabric::MemberRange here, bool all = false);

  int64_t size() const { return static_cast<int64_t>(rows_.size()); }
  const Row& operator[](int64_t i) const { return rows_[static_cast<size_t>(i)]; }
  /// For each rank of this host: the row's place among those that the rank computes for the same home, or -1.
  std::span<const int32_t> places(int64_t i) const {
    return {places_.data() + static_cast<size_t>(i) * num_here_, num_here_};
  }

 private:
  size_t num_here_ = 0;
  std::vector<Row> rows_;
  std::vector<int32_t> places_;
};

}  // namespace cadre::a2a
