#include "a2a/send_lists.h"

#include <algorithm>

namespace cadre::a2a {
namespace {

std::vector<int32_t> BySize(int32_t num_ranks, int32_t ranks_per_group) {
  std::vector<int32_t> groups;
  for (int32_t r = 0; r < num_ranks; ++r) groups.push_back(r / ranks_per_group);
  return groups;
}

std::vector<int32_t> ByHost(std::span<const fabric::MemberRange> hosts) {
  std::vector<int32_t> groups;
  for (size_t h = 0; h < hosts.size(); ++h)
    groups.insert(groups.end(), static_cast<size_t>(hosts[h].count), static_cast<int32_t>(h));
  return groups;
}

}  // namespace

Status CheckSlots(std::span<const int32_t> slots, int32_t num_slots) {
  for (const int32_t slot : slots) {
    if (slot >= num_slots) {
      return Fail(Code::kInternal, "a row was routed to slot {}; there are {} slots", slot, num_slots);
    }
  }
  return {};
}

GroupLists::GroupLists(int32_t top_k, const eplb::SlotLayout& layout, std::vector<int32_t> group_of_rank)
    : top_k_(top_k),
      num_groups_(group_of_rank.back() + 1),
      layout_(layout),
      group_of_rank_(std::move(group_of_rank)),
      list_begin_(static_cast<size_t>(num_groups_) + 1),
      cursor_(static_cast<size_t>(num_groups_)),
      stop_begin_(1) {}

GroupLists::GroupLists(int32_t top_k, const eplb::SlotLayout& layout, int32_t ranks_per_group)
    : GroupLists(top_k, layout, BySize(layout.num_ranks, ranks_per_group)) {}

GroupLists::GroupLists(int32_t top_k, const eplb::SlotLayout& layout,
                       std::span<const fabric::MemberRange> hosts)
    : GroupLists(top_k, layout, ByHost(hosts)) {}

void GroupLists::Build(const int32_t* slots, int64_t num_rows) {
  std::fill(cursor_.begin(), cursor_.end(), 0);
  stops_.clear();
  stop_begin_.resize(1);
  for (int64_t t = 0; t < num_rows; ++t) {
    const size_t first = stops_.size();
    for (const int32_t slot : std::span(slots + t * top_k_, static_cast<size_t>(top_k_))) {
      if (slot < 0) continue;
      if (layout_.sharded) {
        for (int32_t g = 0; g < num_groups_; ++g) stops_.push_back({g, 0});
        break;
      }
      const int32_t group = group_of_rank_[static_cast<size_t>(layout_.RankOf(slot))];
      size_t at = stops_.size();  // kept sorted: a row has few stops
      while (at > first && stops_[at - 1].group > group) --at;
      if (at > first && stops_[at - 1].group == group) continue;
      stops_.insert(stops_.begin() + static_cast<int64_t>(at), {group, 0});
    }
    for (size_t i = first; i < stops_.size(); ++i)
      stops_[i].place = cursor_[static_cast<size_t>(stops_[i].group)]++;
    stop_begin_.push_back(static_cast<int32_t>(stops_.size()));
  }
  for (size_t g = 0; g < cursor_.size(); ++g) list_begin_[g + 1] = list_begin_[g] + cursor_[g];
  lists_.resize(stops_.size());
  for (int64_t t = 0; t < num_rows; ++t) {
    for (const Stop& stop : StopsOf(t)) {
      lists_[static_cast<size_t>(list_begin_[static_cast<size_t>(stop.group)] + stop.place)] =
          static_cast<int32_t>(t);
    }
  }
}

std::span<const int32_t> GroupLists::RowsFor(int group) const {
  const auto g = static_cast<size_t>(group);
  return std::span(lists_).subspan(static_cast<size_t>(list_begin_[g]),
                                   static_cast<size_t>(list_begin_[g + 1] - list_begin_[g]));
}

std::span<const GroupLists::Stop> GroupLists::StopsOf(int64_t row) const {
  const auto t = static_cast<size_t>(row);
  return std::span(stops_).subspan(static_cast<size_t>(stop_begin_[t]),
                                   static_cast<size_t>(stop_begin_[t + 1] - stop_begin_[t]));
}

void NumberWithinSlots(std::span<const int32_t> slots, std::span<int32_t> counts, int32_t* places) {
  std::fill(counts.begin(), counts.end(), 0);
  for (size_t i = 0; i < slots.size(); ++i)
    places[i] = slots[i] < 0 ? -1 : counts[static_cast<size_t>(slots[i])]++;
}

void ListBySlot(std::span<const int32_t> slots, int32_t top_k, std::span<const int32_t> counts,
                const int32_t* places, int32_t* entries, std::span<int32_t> begins) {
  begins[0] = 0;
  for (size_t s = 0; s < counts.size(); ++s) begins[s + 1] = begins[s] + counts[s];
  for (size_t i = 0; i < slots.size(); ++i) {
    if (slots[i] < 0) continue;
    entries[begins[static_cast<size_t>(slots[i])] + places[i]] = static_cast<int32_t>(i) / top_k;
  }
}

}  // namespace cadre::a2a
