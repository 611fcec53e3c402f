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
enum Flag : int { kDispatchFlag, kCombineFlag, kGatherFlag, kCountsFlag, kConsumedFlag, kNumFlags };

struct SegmentParts {
  explicit SegmentParts(const Options& options);
  fabric::Regions regions;
  size_t rows, slots, weights;
  int num_channels = 0;  // between hosts
  size_t landing_bytes = 0;
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
  uint32_t round() const { return first_round_ + static_cast<uint32_t>(chunk_); }
  int64_t chunk() const { return chunk_; }
  int64_t num_chunks() const { return num_chunks_; }
  fabric::WaitContext Context(const char* what) const { return {what, step_, deadline_}; }

  void BeginStep(int64_t step, TimePoint deadline);
  /// Begins an exchange.
  std::byte* Stage(int64_t num_rows);
  const std::byte* staged() const { return fabric_->own() + parts_.rows; }

  /// Copies the next piece's choices beside the rows; which rows they are.
  RowRange TakePiece(const Routing& routing);
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
  /// After AwaitPieces: whether `rank` has sent a piece of this chunk, and its rows and choices in place.
  bool HasPiece(int rank) const;
  Source SourceOf(int rank) const;
  /// Both, for all ranks of this host; other entries are left alone.
  Status AwaitSources(std::vector<Source>& sources);

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
