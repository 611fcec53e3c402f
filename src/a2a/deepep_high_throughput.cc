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

#include "a2a/backends.h"
#include "a2a/by_rank.h"

namespace cadre::a2a {
namespace {

struct Parts : ByRankParts {
  explicit Parts(const Options& o) : ByRankParts(o, Algorithm::kDeepEpHighThroughput) {
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
                  ranks_per_host() < num_ranks_ ? "by host, then rank" : "in rank order");
  }
  bool contiguous() const override { return true; }
  int64_t header_bytes() const override { return options_.top_k * 12 + 4; }
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
  }

  Status ReceiveCounts() override {
    CADRE_TRY(segment_->AwaitPieces(kCountsFlag));
    const auto first = options_.layout.Begin(me_), count = options_.layout.Count(me_);
    offsets_.assign(static_cast<size_t>(count) + 1, 0);
    for (int s = 0; s < num_ranks_; ++s) {
      if (!segment_->HasPiece(s)) continue;
      const int32_t* counts =
          Peer<int32_t>(s, slot_counts_) + segment_->chunk() * options_.layout.num_slots + first;
      for (int32_t i = 0; i < count; ++i) offsets_[static_cast<size_t>(i) + 1] += counts[i];
      if (s == me_) continue;
      bytes_.dispatch_algorithmic += 4 * (count + 1);
      bytes_.dispatch_physical += 4 * count;
    }
    for (size_t i = 1; i < offsets_.size(); ++i) offsets_[i] += offsets_[i - 1];
    return {};
  }

  std::span<const int32_t> expected_offsets() const override { return offsets_; }

 private:
  size_t slot_counts_;
  std::vector<int32_t> offsets_;  // offsets of the table as the counts say
};

}  // namespace

int64_t DeepEpHighThroughputBytes(const Options& options) {
  return static_cast<int64_t>(Parts(options).regions.total());
}

Result<std::unique_ptr<AllToAll>> CreateDeepEpHighThroughput(const Options& options) {
  const Parts parts(options);
  CADRE_ASSIGN(auto segment, RankSegment::Open(options, parts, parts.chunk_rows));
  return std::make_unique<HighThroughput>(options, parts, std::move(segment));
}

}  // namespace cadre::a2a
