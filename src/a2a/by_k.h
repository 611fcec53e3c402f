#pragma once
// Exchanges that bring the expert rows home as they are: K rows for one, weighted and summed there by rising
// k. So the sum does not depend on where experts lie: not on the map, nor on the number of ranks.
//
// The experts write their rows straight into the segment (StageResults), in the table's order, by (slot,
// source, row); the home rank reads its rows there. It knows the number of each of its rows among its own of
// the same slot; where its part of each slot begins, the expert's rank publishes: begins[home][local slot].
// How a receiver learns which rows it has to compute differs between the names.
//
// Between hosts the expert rows travel as they are too, f32, never rounded: the sum has the same bits as on
// one host. Those for one home host are sent by (home rank, rank, slot, row), which is how they lie in the
// table: a run of rows for each slot. The home rank counts its choices per slot to find them.
//
// Reuse of the one set: as in by_rank.h; results and begins of a chunk are overwritten after AwaitConsumed.
#include <span>
#include <vector>

#include "a2a/row_sum.h"
#include "a2a/segment_exchange.h"
#include "a2a/send_lists.h"

namespace cadre::a2a {

struct ByKParts : SegmentParts {
  ByKParts(const Options& options, const fabric::GroupHosts& hosts, Algorithm algorithm);
  /// When all regions are there: the mail, with this much beside rows.
  void AddMail(const Options& options, const fabric::GroupHosts& hosts, MailSpec spec);
  int64_t chunk_rows, num_pieces;
  int64_t result_rows;  // the most rows of a chunk's table
  size_t begins;        // [ranks + 1, most slots of a rank]; the last row: where the slots end
  size_t results;       // [result_rows, hidden] f32
  MailParts mail;
};

class ByKExchange : public SegmentExchange {
 public:
  Status Send(const Routing& routing) override;
  Result<RowTable> Receive() override;
  float* StageResults() override { return Own<float>(parts_.results); }
  Status SendResults(const float* expert_rows) override;
  Status ReceiveResults(float* out, bool accumulate) override;

 protected:
  ByKExchange(const Options& options, const ByKParts& parts, Algorithm algorithm,
              std::unique_ptr<RankSegment> segment);

  std::string IdeaOverHosts() const override;
  /// Makes the piece's rows and choices visible and raises the dispatch flag.
  virtual void SendPiece(int64_t piece_idx, RowRange piece, const Routing& routing) = 0;
  /// After the wait: the table of this chunk; `begins` of each source as in RowTableBuilder. Counts bytes.
  virtual Result<RowTable> BuildTable() = 0;
  virtual std::span<const int32_t> BeginsOf(int source) const = 0;

  /// Bytes of a row as it travels, and what the name's formula has beside it.
  virtual int64_t wire_bytes() const { return segment_->row_bytes(); }
  virtual int64_t header_bytes() const = 0;

  int32_t num_local_slots() const { return options_.layout.Count(me_); }

  ByKParts parts_;
  std::vector<int32_t> counts_;  // [slots] this rank's rows of the piece sent last
  std::vector<int32_t> slots_;   // [T, K] of the exchange
  std::vector<int32_t> places_;  // [T, K] number of a choice among its piece's of the same slot

 private:
  size_t BeginsOffset(int home) const;
  void GatherResults(int host, std::vector<fabric::Piece>& pieces) const;
  const float* ResultOf(int rank, int32_t slot, size_t choice) const;
  void CountCombine(RowRange piece);

  std::vector<float> weights_;                     // [T, K]
  std::vector<std::vector<int32_t>> slot_begins_;  // by piece: [slots + 1] running sum of its counts
  std::vector<int> host_of_;                       // [ranks]
  int64_t table_rows_ = 0;
};

}  // namespace cadre::a2a
