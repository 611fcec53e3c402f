// Counts first, then rows: each row once per rank, received rows contiguous by source, sums in each host
// before they travel.
//
// Counts (rows for each rank, rows for each slot) are raised as a flag of their own before the lists are
// written, so a receiver knows all sizes and lays out its table while the sources still pack. Received rows
// are ordered by (source rank, row), and so are the partial sums. The home rank adds the partial sums of each
// host in rank order, then the hosts' sums: the tree by host, then rank. Between hosts only the host's sum
// has to travel.
//
// Bytes drawn from other ranks, D ranks apart from the own one having experts of a row, L local slots:
// D (H b + 12 K + 4) + 4 (R - 1) (L + 1) and D H 4 by the formula; here D (H b + 8 K + 4) and the same
// counts, and 4 for each peer's begin that is looked at.
#include <algorithm>
#include <array>

#include "a2a/backends.h"
#include "a2a/by_rank.h"

namespace cadre::a2a {
namespace {

// Of a host.
size_t MostSlots(const Options& o, const fabric::GroupHosts& hosts) {
  int32_t most = 0;
  for (const auto& host : hosts.members) most = std::max(most, SlotsOfHost(o.layout, host).count);
  return static_cast<size_t>(most);
}

struct Parts : ByRankParts {
  Parts(const Options& o, const fabric::GroupHosts& hosts)
      : ByRankParts(o, hosts, Algorithm::kDeepEpHighThroughput, true, MostSlots(o, hosts)) {
    slot_counts = regions.Add(static_cast<size_t>(num_pieces) * static_cast<size_t>(o.layout.num_slots) *
                              sizeof(int32_t));
  }
  size_t slot_counts;  // [pieces, slots]
};

class HighThroughput final : public ByRankExchange {
 public:
  HighThroughput(const Options& options, const Parts& parts, std::unique_ptr<RankSegment> segment)
      : ByRankExchange(options, parts, Algorithm::kDeepEpHighThroughput, std::move(segment)),
        slot_counts_(parts.slot_counts) {}

 protected:
  std::string Idea() const override {
    return Format("counts first, a row once per rank, contiguous by source; partial sums f32, {}",
                  mail_.any() || ranks_per_host() < num_ranks_ ? "by host, then rank" : "in rank order");
  }
  bool contiguous() const override { return true; }
  int64_t header_bytes() const override { return options_.top_k * 12 + 4; }
  std::string IdeaOverHosts() const override {
    return "counts in a message of their own before; " + ByRankExchange::IdeaOverHosts();
  }
  int ranks_per_host() const override {
    return options_.tree_ranks_per_host > 0 ? options_.tree_ranks_per_host : num_ranks_;
  }

  void SendCounts(int64_t piece, std::span<const int32_t> slots) override {
    const std::span counts(Own<int32_t>(slot_counts_) + piece * options_.layout.num_slots,
                           static_cast<size_t>(options_.layout.num_slots));
    std::ranges::fill(counts, 0);
    for (const int32_t slot : slots) {
      if (slot >= 0) ++counts[static_cast<size_t>(slot)];
    }
    segment_->PublishPiece(kCountsFlag);
    if (piece == segment_->chunk()) PostCounts(piece, false);
  }

  // To each other host, of each rank here that has a piece: how many of its rows are for each slot there.
  void PostCounts(int64_t chunk, bool sure) {
    mail_.PostSide(chunk, kCountsFlag, sure, [&](int host, std::vector<fabric::Piece>& pieces) {
      const SlotRange there = SlotsOfHost(options_.layout, segment_->fabric().members(host));
      for (int r = here_.begin; r < here_.begin + here_.count; ++r) {
        if (chunk > 0 && !segment_->HasPiece(r, chunk)) continue;
        pieces.push_back({Peer<std::byte>(r, slot_counts_) +
                              (chunk * options_.layout.num_slots + there.begin) * int64_t{4},
                          static_cast<size_t>(there.count) * 4});
      }
    });
  }

  Status ReceiveCounts() override {
    CADRE_TRY(segment_->AwaitPieces(kCountsFlag));
    const auto first = options_.layout.Begin(me_), count = options_.layout.Count(me_);
    offsets_.assign(static_cast<size_t>(count) + 1, 0);
    for (int s = here_.begin; s < here_.begin + here_.count; ++s) {
      if (!segment_->HasPiece(s)) continue;
      CADRE_TRY(TakeCounts(
          s, Peer<int32_t>(s, slot_counts_) + segment_->chunk() * options_.layout.num_slots + first));
    }
    if (mail_.any()) CADRE_TRY(ReceiveHostCounts());
    for (size_t i = 1; i < offsets_.size(); ++i) offsets_[i] += offsets_[i - 1];
    return {};
  }

  Status ReceiveHostCounts() {
    PostCounts(segment_->chunk(), true);
    const fabric::Fabric& fabric = segment_->fabric();
    std::array<uint32_t, kMaxRanks> bytes;
    CADRE_TRY(mail_.AwaitSide(bytes.data(), "dispatch"));
    const SlotRange here = SlotsOfHost(options_.layout, here_);
    for (int h = 0; h < fabric.num_hosts(); ++h) {
      if (h == fabric.own_host()) continue;
      const auto [begin, count] = fabric.members(h);
      const auto* counts = reinterpret_cast<const int32_t*>(mail_.SideFrom(h));
      const int32_t* end = counts + bytes[static_cast<size_t>(h)] / 4;
      for (int s = begin; s < begin + count; ++s) {
        // In the first chunk all have a piece; how many follow, the rows' message says.
        if (segment_->chunk() > 0 && !segment_->HasPiece(s)) continue;
        if (end - counts < here.count) return FailCounts(h);
        CADRE_TRY(TakeCounts(s, counts + (options_.layout.Begin(me_) - here.begin)));
        counts += here.count;
      }
      if (counts != end) return FailCounts(h);
      mail_.CountWire(h, bytes[static_cast<size_t>(h)], 0);
    }
    return {};
  }

  Status FailCounts(int host) const {
    return Fail(Code::kDataLoss, "{} sent counts of another number of slots",
                fabric::NameHost(segment_->fabric().hosts().entries[static_cast<size_t>(host)]));
  }

  Status TakeCounts(int source, const int32_t* counts) {
    const int32_t count = options_.layout.Count(me_);
    for (int32_t i = 0; i < count; ++i) {
      if (counts[i] < 0 || counts[i] > parts_.chunk_rows) {
        return Fail(Code::kDataLoss, "rank {} sent a count of {} rows for a slot; a chunk has at most {}",
                    segment_->fabric().world_rank(source), counts[i], parts_.chunk_rows);
      }
      offsets_[static_cast<size_t>(i) + 1] += counts[i];
    }
    if (source == me_) return {};
    bytes_.dispatch_algorithmic += 4 * (count + 1);
    bytes_.dispatch_physical += 4 * count;
    return {};
  }

  void SendNextCounts() override {
    if (segment_->chunk() + 1 < segment_->num_chunks()) PostCounts(segment_->chunk() + 1, false);
  }

  std::span<const int32_t> expected_offsets() const override { return offsets_; }

 private:
  size_t slot_counts_;
  std::vector<int32_t> offsets_;  // offsets of the table as the counts say
};

}  // namespace

int64_t DeepEpHighThroughputBytes(const Options& options, const fabric::GroupHosts& hosts) {
  return Parts(options, hosts).TotalBytes(hosts);
}

Result<std::unique_ptr<AllToAll>> CreateDeepEpHighThroughput(const Options& options,
                                                             const fabric::GroupHosts& hosts) {
  const Parts parts(options, hosts);
  CADRE_ASSIGN(auto segment, RankSegment::Open(options, parts, parts.chunk_rows));
  return std::make_unique<HighThroughput>(options, parts, std::move(segment));
}

}  // namespace cadre::a2a
