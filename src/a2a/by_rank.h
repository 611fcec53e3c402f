#pragma once
// Exchanges that send a row once to each rank that has experts for it, and get one partial sum back from
// each.
//
// Dispatch: beside its rows and choices a rank publishes, for each other rank, the list of rows that this one
// must see (GroupLists). A receiver looks at no other rows. Combine: a rank sums its experts' weighted rows
// of a source row (rising k) into its own segment; the home rank pulls the partial sums, in rank order, its
// own computed on the way. What differs between the names is where lists and partial sums lie, when counts
// travel, and how the home rank groups the terms.
//
// Reuse of the one set: choices, lists and counts have a place for every row of an exchange, so a piece
// overwrites nothing; the next exchange does, after the combine wait of this one, when all have built their
// tables. Partial sums of a chunk are overwritten after AwaitConsumed; of the last chunk, after the next
// exchange's dispatch wait.
#include <span>
#include <vector>

#include "a2a/row_sum.h"
#include "a2a/segment_exchange.h"
#include "a2a/send_lists.h"

namespace cadre::a2a {

struct ByRankParts : SegmentParts {
  ByRankParts(const Options& options, Algorithm algorithm);
  int64_t chunk_rows, num_pieces;
  size_t counts;    // [pieces, ranks] rows for each rank
  size_t lists;     // [pieces, ranks, chunk rows] which rows
  size_t begins;    // [ranks] where each home's partial sums begin; only where they lie contiguously
  size_t partials;  // [(ranks - 1) * chunk rows, hidden] f32
};

class ByRankExchange : public SegmentExchange {
 public:
  Status Send(const Routing& routing) override;
  Result<RowTable> Receive() override;
  Status SendResults(const float* expert_rows) override;
  Status ReceiveResults(float* out, bool accumulate) override;

 protected:
  ByRankExchange(const Options& options, const ByRankParts& parts, Algorithm algorithm,
                 std::unique_ptr<RankSegment> segment);

  /// Called in Send after the counts are written, before the lists are.
  virtual void SendCounts(int64_t /*piece*/, std::span<const int32_t> /*slots*/) {}
  /// Called in Receive before the wait for the rows.
  virtual Status ReceiveCounts() { return {}; }
  /// The offsets of the table, if ReceiveCounts has found them.
  virtual std::span<const int32_t> expected_offsets() const { return {}; }
  /// Partial sums of all homes lie one behind the other (begins are published), or each home's in a block of
  /// its own.
  virtual bool contiguous() const = 0;
  /// Bytes beside a row: in the name's formula, and here.
  virtual int64_t header_bytes() const = 0;
  int64_t physical_header_bytes() const { return options_.top_k * 8 + 4; }
  /// Ranks whose terms the home rank sums first among themselves; all for a flat tree.
  virtual int ranks_per_host() const { return num_ranks_; }

  const int32_t* CountsOf(int rank, int64_t piece) const {
    return Peer<int32_t>(rank, parts_.counts) + piece * num_ranks_;
  }

  ByRankParts parts_;

 private:
  size_t ListOffset(int64_t piece, int target) const;
  void CountDispatch(size_t num_rows);
  int64_t BlockBegin(int at, int home) const;  // of a home's fixed block in the partial sums of `at`
  size_t TakeOwn(int64_t entry, const float** terms) const;
  RowTerms TermsOf(std::span<const GroupLists::Stop> stops, const float** partials, const float** own) const;
  void SumOwnRow(int64_t t, const GroupLists& lists, float* out, bool accumulate) const;

  RowTableBuilder builder_;
  std::vector<Source> sources_;
  std::vector<GroupLists> sent_;     // by piece, grown as needed
  std::vector<int64_t> peer_begin_;  // [ranks] where the partial sums for me begin at each rank
  const float* expert_rows_ = nullptr;
};

}  // namespace cadre::a2a
