#pragma once
// Exchanges whose experts' rows of a source row are summed where the experts are: one partial sum comes back
// from each rank, over hosts one sum from each host.
//
// Dispatch: beside its rows and choices a rank publishes, for each other rank, the list of rows that this one
// must see (GroupLists); a receiver looks at no other rows. (allgather_reducescatter publishes no lists: all
// look at all choices.) To another host go the rows that some rank there must see, each once; the lists for
// its ranks are numbers of these rows. Combine: a rank sums its experts' weighted rows of a source row
// (rising k) into its own segment; the home rank pulls the partial sums of its host, in rank order, its own
// computed on the way; HostSums brings those of the other hosts. What differs between the names is where
// lists and partial sums lie, when counts travel, and how the home rank groups the terms.
//
// Reuse of the one set: choices, lists and counts have a place for every row of an exchange, so a piece
// overwrites nothing; the next exchange does, after the combine wait of this one, when all have built their
// tables. Partial sums of a chunk are overwritten after AwaitConsumed; of the last chunk, after the next
// exchange's dispatch wait.
#include <span>
#include <vector>

#include "a2a/host_sums.h"
#include "a2a/row_sum.h"
#include "a2a/segment_exchange.h"
#include "a2a/send_lists.h"

namespace cadre::a2a {

struct ByRankParts : SegmentParts {
  /// `side_words`: of a further message of each rank to another host, see MailSpec.
  ByRankParts(const Options& options, const fabric::GroupHosts& hosts, Algorithm algorithm,
              bool listed = true, size_t side_words = 0);
  int64_t chunk_rows, num_pieces, lists_per_piece;
  size_t counts = 0;  // [pieces, ranks of a host] rows for each rank of this host
  size_t lists = 0;   // [pieces, ranks of a host, chunk rows] which rows
  size_t begins = 0;  // [ranks] where each home's partial sums begin; only where they lie contiguously
  size_t partials;    // [(ranks - 1) * chunk rows, hidden] f32
  MailParts mail;
  HostSumsParts sums;
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

  std::string IdeaOverHosts() const override;
  /// Called in Send after the counts are written, before the lists are.
  virtual void SendCounts(int64_t /*piece*/, std::span<const int32_t> /*slots*/) {}
  /// Called in Receive before the wait for the rows.
  virtual Status ReceiveCounts() { return {}; }
  /// Called in Receive when the rows are there, before those of the next chunk are sent to other hosts.
  virtual void SendNextCounts() {}
  /// The offsets of the table, if ReceiveCounts has found them.
  virtual std::span<const int32_t> expected_offsets() const { return {}; }
  /// Whether receivers are told which rows to look at.
  virtual bool listed() const { return true; }
  /// Partial sums of all homes lie one behind the other (begins are published), or each home's in a block of
  /// its own.
  virtual bool contiguous() const = 0;
  /// Bytes beside a row: in the name's formula, and here.
  virtual int64_t header_bytes() const = 0;
  int64_t physical_header_bytes() const { return options_.top_k * 8 + 4; }
  /// What the name's formula brings home from another host for a row: one sum, or one a rank.
  virtual bool formula_sums_by_host() const { return true; }
  /// Ranks whose terms the home rank sums first among themselves; all for a flat tree.
  virtual int ranks_per_host() const { return num_ranks_; }

  /// Of a rank of this host.
  const int32_t* CountsOf(int rank, int64_t piece) const {
    return Peer<int32_t>(rank, parts_.counts) + piece * parts_.lists_per_piece;
  }

  ByRankParts parts_;

 private:
  size_t ListOffset(int64_t piece, int target) const;
  size_t WriteNotes(const Routing& routing, const GroupLists& lists, int host, std::span<const int32_t> rows,
                    int32_t* notes);
  Status TakeSource(int rank);
  Status TakeParcel(int rank);
  void CountDispatch();
  void CountCombine(const GroupLists& lists, RowRange piece);
  // Rows that a source has for this rank's experts, and their places in the table.
  int64_t NumEntries(int source) const;
  std::span<const int32_t> PlacesOf(int source, int64_t entry) const;
  int64_t BlockBegin(int at, int home) const;  // of a home's fixed block in the partial sums of `at`
  int64_t PartialBegin(int at, int home) const {
    return contiguous() ? Peer<int32_t>(at, parts_.begins)[home] : BlockBegin(at, home);
  }
  RowTerms TermsOf(std::span<const GroupLists::Stop> stops, int64_t t, const float** partials,
                   const float** own) const;
  void SumOwnRow(int64_t t, const GroupLists& lists, float* out, bool accumulate) const;
  void SumOwnRowOverHosts(int64_t t, std::span<const GroupLists::Stop> stops, float* out,
                          bool accumulate) const;

  RowTableBuilder builder_;
  HostSums sums_;
  std::vector<Source> sources_;
  std::vector<GroupLists> sent_;     // by piece, grown as needed
  std::vector<int64_t> peer_begin_;  // [ranks] where the partial sums for me begin at each rank of this host
  std::vector<int32_t> places_;      // [rows of a piece] place of a row in what goes to a host
  const float* expert_rows_ = nullptr;
};

}  // namespace cadre::a2a
