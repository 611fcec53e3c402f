#pragma once
// Which rows have partial sums where, in a group over hosts. Everything follows from the choices that all
// ranks see, so nothing about it is sent.
//
// A host that computes for a row of another host sends one row home, the sum over its ranks. Those for one
// home host lie in (home rank, row) order. Both sides count them: HostRows as the sender, HomeRows as the
// receiver.
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
  /// `sources` of all members; `from` the other host's members, `here` this one's.
  void Build(const eplb::SlotLayout& layout, int32_t top_k, std::span<const Source> sources,
             fabric::MemberRange from, fabric::MemberRange here);

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

/// The receiving side: where in another host's message the sums for one rank's rows lie.
class HomeRows {
 public:
  /// `here`: the members of the home host, `home` among them; `there`: those of the other host.
  void Build(const eplb::SlotLayout& layout, int32_t top_k, std::span<const Source> sources, int home,
             fabric::MemberRange here, fabric::MemberRange there);

  /// Place of own row t, or -1.
  int32_t operator[](int64_t t) const { return places_[static_cast<size_t>(t)]; }
  /// Rows in the whole message.
  int64_t num_in_message() const { return num_in_message_; }
  /// Of them, for this rank.
  int64_t num_own() const { return num_own_; }

 private:
  std::vector<int32_t> places_;
  int64_t num_in_message_ = 0, num_own_ = 0;
};

}  // namespace cadre::a2a
