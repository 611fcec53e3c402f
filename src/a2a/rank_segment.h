#pragma once
// What the back ends of one host share: each rank's segment begins with its staged rows and its choices, and
// flags that say how far it is.
//
// Rounds: each chunk of an exchange is one round, so an exchange takes as many as its rank with the most rows
// has pieces. A dispatch flag carries the rank's rows in the whole exchange; so all know after the first
// chunk how many follow, and a rank with fewer pieces raises no more dispatch flags in this exchange. All
// raise all combine flags.
#include <memory>
#include <vector>

#include "a2a/a2a.h"
#include "a2a/row_table.h"
#include "fabric/fabric.h"
#include "fabric/regions.h"

namespace cadre::a2a {

/// The flags that a rank raises, each at most once a round.
enum Flag : int {
  kDispatchFlag,
  kCombineFlag,
  kGatherFlag,
  kCountsFlag,
  kConsumedFlag,
  kSumsFlag,
  kNumFlags
};

struct SegmentParts {
  explicit SegmentParts(const Options& options);
  fabric::Regions regions;
  size_t rows, slots, weights;
  int num_channels = 0;      // between hosts
  size_t landing_bytes = 0;  // of a zone, one for each host that a rank carries for
  size_t message_bytes = 0;  // the most in one message

  /// Bytes of segment and landing zones on the busiest rank of this host.
  int64_t TotalBytes(const fabric::GroupHosts& hosts) const;
};

class RankSegment {
 public:
  /// `parts` may have had further regions added. Collective.
  static Result<std::unique_ptr<RankSegment>> Open(const Options& options, const SegmentParts& parts,
                                                   int64_t chunk_rows);

  fabric::Fabric& fabric() { return *fabric_; }
  int rank() const { return fabric_->rank(); }
  int size() const { return fabric_->size(); }
  int64_t row_bytes() const { return row_bytes_; }
  int64_t num_rows() const { return num_rows_; }
  int64_t chunk_rows() const { return chunk_rows_; }
  /// Of the chunk that is being received.
  uint32_t round() const { return RoundOf(chunk_); }
  uint32_t RoundOf(int64_t chunk) const { return first_round_ + static_cast<uint32_t>(chunk); }
  int64_t chunk() const { return chunk_; }
  /// As far as is known: whole once the first chunk has come.
  int64_t num_chunks() const { return num_chunks_; }
  fabric::WaitContext Context(const char* what) const { return {what, step_, deadline_}; }

  void BeginStep(int64_t step, TimePoint deadline);
  /// Begins an exchange.
  std::byte* Stage(int64_t num_rows);
  const std::byte* staged() const { return fabric_->own() + parts_.rows; }

  /// Copies the next piece's choices beside the rows, with their weights where others weigh; which rows they
  /// are.
  RowRange TakePiece(const Routing& routing, bool with_weights = true);
  int64_t num_pieces_taken() const { return num_pieces_; }
  /// Raises a flag for the piece taken last; its count is the rank's rows in the exchange.
  void PublishPiece(Flag flag);
  /// Both.
  void SendRouting(const Routing& routing) {
    TakePiece(routing);
    PublishPiece(kDispatchFlag);
  }

  /// Waits for the pieces of this chunk of all ranks of this host.
  Status AwaitPieces(Flag flag);
  /// Takes down how many rows a rank of another host has in this exchange. kDataLoss if more than Tmax.
  Status NoteRows(int rank, int64_t rows);
  /// After AwaitPieces (and NoteRows): whether `rank` has a piece of this chunk, or of another.
  bool HasPiece(int rank) const { return HasPiece(rank, chunk_); }
  bool HasPiece(int rank, int64_t chunk) const;
  /// Its rows within the exchange.
  RowRange PieceOfRank(int rank) const;
  /// Rows and choices, in place, of a rank of this host: of this chunk, or of any rows.
  Source SourceOf(int rank) const { return PieceAt(rank, PieceOfRank(rank)); }
  Source PieceAt(int rank, RowRange rows) const;

  /// This rank has published its results of the chunk; then everybody has.
  void PublishCombine() { fabric_->Publish(kCombineFlag, round(), 0); }
  Status AwaitCombine();
  /// Ends the chunk; what others published for it is not read any more.
  void FinishChunk();
  /// Whether chunks follow.
  bool more() const { return chunk_ < num_chunks_; }
  /// Waits until all ranks have finished the chunk before this one, so that results may be written again.
  /// Before the first chunk of an exchange there is nothing to wait for: its dispatch flags say so.
  Status AwaitConsumed();

  bool CanariesIntact() const;

 private:
  RankSegment(const Options& options, const SegmentParts& parts, int64_t chunk_rows,
              std::unique_ptr<fabric::Fabric> fabric);

  SegmentParts parts_;
  std::unique_ptr<fabric::Fabric> fabric_;
  int64_t row_bytes_, max_rows_, chunk_rows_, num_rows_ = 0;
  int32_t top_k_;
  uint32_t first_round_;
  int64_t chunk_ = 0, num_chunks_ = 0, num_pieces_ = 0;
  int64_t step_ = 0;
  TimePoint deadline_ = TimePoint::max();
  std::vector<uint32_t> counts_;  // rows of each rank in this exchange
};

}  // namespace cadre::a2a
