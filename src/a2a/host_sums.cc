#include "a2a/host_sums.h"

#include <algorithm>
#include <array>

#include "a2a/row_sum.h"

namespace cadre::a2a {

HostSumsParts::HostSumsParts(const Options& o, const fabric::GroupHosts& hosts, int64_t chunk_rows,
                             SegmentParts& parts) {
  if (hosts.size() < 2) return;
  // Segments are the same on all ranks, so a share is one of the fewest that share.
  const int64_t fewest = std::ranges::min(hosts.members, {}, &fabric::MemberRange::count).count;
  for (const fabric::MemberRange& host : hosts.members) {
    const int64_t rows = host.count * std::min(chunk_rows, o.max_rows);
    results.push_back(parts.regions.Add(
        static_cast<size_t>((rows + fewest - 1) / fewest * o.hidden * DTypeBytes(o.act_type))));
  }
}

void HostSums::Plan(std::span<const Source> sources, bool all) {
  const fabric::Fabric& fabric = segment_.fabric();
  for (int h = 0; h < fabric.num_hosts(); ++h) {
    if (h == fabric.own_host()) continue;
    rows_[static_cast<size_t>(h)].Build(options_.layout, options_.top_k, sources, fabric.members(h),
                                        fabric.local(), all);
  }
}

// This rank's share of the rows that go to `host`.
void HostSums::Reduce(int host, PartialOf partial) {
  const HostRows& rows = rows_[static_cast<size_t>(host)];
  const fabric::MemberRange here = segment_.fabric().local();
  const int me = segment_.rank();
  const RowRange own = SplitRows(rows.size(), here.count, me - here.begin);
  std::byte* to = segment_.fabric().own() + parts_.results[static_cast<size_t>(host)];
  for (int64_t i = own.begin; i < own.begin + own.count; ++i) {
    const auto places = rows.places(i);
    num_read_ += std::ranges::count_if(places, [](int32_t place) { return place >= 0; }) -
                 (places[static_cast<size_t>(me - here.begin)] >= 0 ? 1 : 0);
  }
  ForRows(options_.device, own.count, options_.hidden * 4 * (here.count + 1), [&](int64_t i) {
    std::array<const float*, fabric::kMaxRanksPerHost> terms;
    size_t n = 0;
    const auto places = rows.places(own.begin + i);
    for (size_t j = 0; j < places.size(); ++j) {
      if (places[j] >= 0)
        terms[n++] = partial(here.begin + static_cast<int>(j), rows[own.begin + i].home, places[j]);
    }
    SumRowTo({{terms.data(), n}, {}, {}}, options_.act_type, options_.hidden, to + i * segment_.row_bytes());
  });
}

Status HostSums::Trade(PartialOf partial) {
  fabric::Fabric& fabric = segment_.fabric();
  num_read_ = 0;
  for (int h = 0; h < fabric.num_hosts(); ++h) {
    if (h != fabric.own_host()) Reduce(h, partial);
  }
  fabric.Publish(kGatherFlag, segment_.round(), 0);
  if (fabric.carries_any()) {
    CADRE_TRY(fabric.AwaitAll(kGatherFlag, segment_.round(), nullptr, segment_.Context("combine")));
  }
  return mail_.TradeResults([&](int host, std::vector<fabric::Piece>& pieces) {
    const auto [begin, count] = fabric.local();
    const int64_t rows = rows_[static_cast<size_t>(host)].size();
    for (int j = 0; j < count; ++j) {
      pieces.push_back({fabric.peer(begin + j) + parts_.results[static_cast<size_t>(host)],
                        static_cast<size_t>(SplitRows(rows, count, j).count * segment_.row_bytes())});
    }
  });
}

}  // namespace cadre::a2a
