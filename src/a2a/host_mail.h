#pragma once
// What travels between hosts, the same for every exchange: rows there, results back. With it a rank of
// another host is a source like one of this host, only that its rows lie in the landing zone and are those
// that somebody here needs; the part within the host works as on one host.
//
// Two messages a chunk for each ordered pair of hosts, even if empty:
//   dispatch  head {rows in the exchange, rows here, notes} of each member, the members' notes, and their
//             rows, each once however many ranks and experts of the host need it. Notes are what the
//             algorithm publishes beside the rows (choices, lists, counts). Rows are gathered straight from
//             the members' segments.
//   combine   the results of these rows in an order that both sides can count: the home host knows from its
//             members' heads how many results each member gets.
// Nothing else is exchanged: no sizes beforehand, no requests.
//
// Overlap: the carrier sends as soon as all ranks of its host have sent their pieces: within Send if it is
// the last, else when it receives; the next chunk's message when this chunk's has come, so it travels while
// the experts compute.
//
// Reuse, with rounds rising by one a chunk. A dispatch message r is posted by a carrier that is past
// ReceiveResults(r - 2), so it has all hosts' combine messages r - 2, each sent when all ranks there had
// raised combine r - 2, done with the rows of r - 2: two landing places alternate. A combine message r is
// sent after this host's own combine r - 1 message has come there, sent when all ranks here had raised it,
// done with the results of r - 2: again two places. Where an exchange has one chunk only, one place is
// enough: then a dispatch message r is sent when all ranks of its host have raised dispatch r, so they are
// done with the results of r - 1, and their host has received what was sent to it. Heads of messages
// alternate with the places. Notes and lists have a place for each piece of an exchange; the next exchange
// overwrites them after the last chunk's combine messages, which were sent after all its dispatch messages
// had been received. A result's memory is free when this host's ranks have finished the chunk
// (RankSegment::AwaitConsumed), because carriers see their message out before.
#include <cstdint>
#include <span>
#include <vector>

#include "a2a/rank_segment.h"
#include "a2a/send_lists.h"

namespace cadre::a2a {

/// What an algorithm sends. Notes are counted in words of 4 bytes.
struct MailSpec {
  size_t rows = 0;             ///< where in a segment the rows that travel lie
  int64_t row_bytes = 0;       ///< of each
  int64_t notes_per_row = 0;   ///< most words for one row on its way to one host
  int64_t notes_per_host = 0;  ///< most words besides, for a piece and host
  bool all_rows = false;       ///< every host gets all rows, with all choices as notes (slots, then weights)
  bool all_results = false;    ///< and sends a result for each
  bool by_k = false;           ///< results: f32, one for each (row, choice there); else of the model's type,
                               ///< one for each row with a choice there
  size_t side_bytes = 0;       ///< most bytes of a further message a chunk, if the algorithm has one
};

/// Places for it in the segment and the landing zone; nothing on one host.
struct MailParts {
  MailParts() = default;
  MailParts(const Options& options, const fabric::GroupHosts& hosts, int64_t chunk_rows, const MailSpec& mail,
            SegmentParts& parts);

  MailSpec spec;
  int64_t result_bytes = 0;
  size_t num_places = 1;
  size_t heads = 0, lists = 0, notes = 0, message_heads = 0;  // in the segment
  size_t list_stride = 0, note_stride = 0, message_head_stride = 0;
  size_t notes_place = 0;  // in the landing zone: behind the head of a dispatch message
  size_t dispatch_stride = 0, combine_begin = 0, combine_stride = 0, side_begin = 0, side_stride = 0;
};

/// The slots of a host.
struct SlotRange {
  int32_t begin = 0, count = 0;
};
SlotRange SlotsOfHost(const eplb::SlotLayout& layout, fabric::MemberRange host);

/// Bytes of landing zones on the busiest rank, for each row of a chunk.
int64_t LandingBytesPerRow(const Options& options, const fabric::GroupHosts& hosts, bool by_k);

class HostMail {
 public:
  HostMail(const Options& options, const MailParts& parts, RankSegment& segment);

  /// Whether the group spans hosts. If not, the calls below do nothing or must not be made.
  bool any() const { return num_hosts_ > 1; }
  bool IsHere(int rank) const { return rank >= here_.begin && rank < here_.begin + here_.count; }

  /// Writes the notes on `rows` (of the piece, rising) for a host; how many words.
  using WriteNotes = sys::FunctionRef<size_t(int host, std::span<const int32_t> rows, int32_t* notes)>;
  /// In Send, before the dispatch flag is raised: which rows go where, and their notes.
  void Pack(int64_t piece_idx, const Routing& routing, WriteNotes write);
  /// In Send, after it: sends this chunk's message if all is there.
  void TryPost() { TryPost(segment_.chunk()); }
  /// After RankSegment::AwaitPieces: sends what has not been sent, waits for the others.
  Status Receive();
  /// After it: sends the next chunk's message if all is there.
  void PostNext() {
    if (segment_.chunk() + 1 < segment_.num_chunks()) TryPost(segment_.chunk() + 1);
  }

  struct Parcel {
    const std::byte* rows = nullptr;
    std::span<const int32_t> notes;
    int64_t num_rows = 0;
  };
  /// What came of a rank of another host in this chunk.
  const Parcel& From(int rank) const { return parcels_[static_cast<size_t>(rank)]; }
  Status FailNotes(int rank) const;

  /// Results go home. For carriers `gather` gives those for a host: (home rank, its results in order).
  Status TradeResults(fabric::Fabric::Gather gather);
  /// Those for this rank's rows, and how many.
  const std::byte* ResultsFrom(int host) const { return results_[static_cast<size_t>(host)]; }
  int64_t NumResults(int host) const { return NumDue(me_, host); }
  /// The hosts that see a row of this chunk's piece, and the row's number among those that they see.
  std::span<const GroupLists::Stop> StopsOf(int64_t row) const {
    return lists_[static_cast<size_t>(segment_.chunk())].StopsOf(row);
  }

  /// A further message a chunk: sends that of `chunk`, unless it has been sent, if `flag` has been raised by
  /// all ranks here or `sure`.
  void PostSide(int64_t chunk, Flag flag, bool sure, fabric::Fabric::Gather gather);
  /// This chunk's of the others; bytes [num_hosts].
  Status AwaitSide(uint32_t* bytes, const char* what);
  const std::byte* SideFrom(int host) const;

  /// Received from other hosts so far; carriers only.
  int64_t dispatch_wire() const { return dispatch_wire_; }
  int64_t combine_wire() const { return combine_wire_; }
  void CountWire(int host, int64_t dispatch, int64_t combine);

 private:
  friend struct MailParts;
  struct Head;         // of a member's piece for a host, in its segment
  struct MessageHead;  // of a member, in a message

  Head* HeadOf(int rank, int64_t piece, int host) const;
  int64_t NumDue(int rank, int host) const;
  bool AllRaised(Flag flag, int64_t chunk) const;
  void TryPost(int64_t chunk);
  void Post(int64_t chunk);
  void GatherRows(int host, int64_t chunk, std::vector<fabric::Piece>& pieces) const;
  Status Take(int host, uint32_t got);
  int Channel(int kind, int64_t chunk) const;
  size_t Place(int64_t chunk) const { return segment_.RoundOf(chunk) % parts_.num_places; }
  const std::byte* Peer(int rank, size_t offset) const { return fabric_.peer(rank) + offset; }

  MailParts parts_;
  RankSegment& segment_;
  fabric::Fabric& fabric_;
  eplb::SlotLayout layout_;
  int32_t top_k_;
  int me_, num_hosts_;
  fabric::MemberRange here_;
  bool carrier_;
  uint32_t posted_, side_posted_;  // last rounds
  std::vector<GroupLists> lists_;  // by piece, grown as needed
  std::vector<int32_t> all_;       // 0, 1, 2, ...
  std::vector<int64_t> choices_;   // of a piece, by host
  std::vector<Parcel> parcels_;    // by rank
  // By host: results that are due to this host in this chunk, and to the ranks before this one.
  std::vector<int64_t> due_, due_before_;
  std::vector<const std::byte*> results_;
  int64_t dispatch_wire_ = 0, combine_wire_ = 0;
};

}  // namespace cadre::a2a
