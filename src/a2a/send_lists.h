#pragma once
// What others must see of this rank's rows, from its choices alone: pure functions of (choices, layout), the
// one place that knows which row goes where, whether it then is read in place or packed into a message.
#include <cstdint>
#include <span>
#include <vector>

#include "base/error.h"
#include "eplb/slot_layout.h"
#include "fabric/fabric.h"

namespace cadre::a2a {

/// kInternal for a choice that no slot answers to.
Status CheckSlots(std::span<const int32_t> slots, int32_t num_slots);

/// Deduplicated: which rows each group of ranks must see, each row once however many of its experts are
/// there. A group is a rank, or all ranks of a host.
class GroupLists {
 public:
  GroupLists(int32_t top_k, const eplb::SlotLayout& layout, int32_t ranks_per_group = 1);
  /// Groups that are the hosts of a group of ranks.
  GroupLists(int32_t top_k, const eplb::SlotLayout& layout, std::span<const fabric::MemberRange> hosts);

  /// slots [num_rows, K], checked. Cost: O(num_rows * K), and O(groups).
  void Build(const int32_t* slots, int64_t num_rows);

  int num_groups() const { return num_groups_; }
  /// Rising.
  std::span<const int32_t> RowsFor(int group) const;

  struct Stop {
    int32_t group;
    int32_t place;  ///< of the row in RowsFor(group)
  };
  /// The groups that see `row`, rising.
  std::span<const Stop> StopsOf(int64_t row) const;

 private:
  GroupLists(int32_t top_k, const eplb::SlotLayout& layout, std::vector<int32_t> group_of_rank);

  int32_t top_k_, num_groups_;
  eplb::SlotLayout layout_;
  std::vector<int32_t> group_of_rank_;
  std::vector<int32_t> lists_, list_begin_, cursor_;
  std::vector<Stop> stops_;
  std::vector<int32_t> stop_begin_;
};

/// One entry per (row, slot): counts[slot] (cleared first) and the number places[i] of choice i among those
/// of its slot, -1 for no choice. slots [n], checked.
void NumberWithinSlots(std::span<const int32_t> slots, std::span<int32_t> counts, int32_t* places);

/// The rows of each slot one behind the other, slots rising, rows rising within; counts and places as made by
/// NumberWithinSlots. entries [sum of counts]; begins [slots + 1].
void ListBySlot(std::span<const int32_t> slots, int32_t top_k, std::span<const int32_t> counts,
                const int32_t* places, int32_t* entries, std::span<int32_t> begins);

}  // namespace cadre::a2a
