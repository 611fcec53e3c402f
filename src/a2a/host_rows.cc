#include "a2a/host_rows.h"

#include <array>

namespace cadre::a2a {
namespace {

std::span<const int32_t> SlotsOf(const Source& source, int64_t row, int32_t top_k) {
  return {source.slots + row * top_k, static_cast<size_t>(top_k)};
}

}  // namespace

uint64_t RanksOfRow(const eplb::SlotLayout& layout, fabric::MemberRange range,
                    std::span<const int32_t> slots) {
  uint64_t ranks = 0;
  const uint64_t all = range.count == 64 ? ~uint64_t{0} : (uint64_t{1} << range.count) - 1;
  const int32_t first = layout.sharded ? 0 : layout.Begin(range.begin);
  const int32_t end = layout.sharded ? layout.num_slots : layout.Begin(range.begin + range.count);
  for (const int32_t slot : slots) {
    if (slot < first || slot >= end) continue;
    if (layout.sharded) return all;
    ranks |= uint64_t{1} << (layout.RankOf(slot) - range.begin);
  }
  return ranks;
}

void HostRows::Build(const eplb::SlotLayout& layout, int32_t top_k, std::span<const Source> sources,
                     fabric::MemberRange from, fabric::MemberRange here, bool all) {
  num_here_ = static_cast<size_t>(here.count);
  rows_.clear();
  places_.clear();
  for (int home = from.begin; home < from.begin + from.count; ++home) {
    const Source& source = sources[static_cast<size_t>(home)];
    std::array<int32_t, kMaxRanks> next = {};
    for (int64_t t = 0; t < source.num_rows; ++t) {
      if (all) {
        rows_.push_back({home, static_cast<int32_t>(t)});
        places_.insert(places_.end(), num_here_, static_cast<int32_t>(t));
        continue;
      }
      const uint64_t ranks = RanksOfRow(layout, here, SlotsOf(source, t, top_k));
      if (ranks == 0) continue;
      rows_.push_back({home, static_cast<int32_t>(t)});
      for (size_t j = 0; j < num_here_; ++j) places_.push_back((ranks >> j & 1) != 0 ? next[j]++ : -1);
    }
  }
}

}  // namespace cadre::a2a
