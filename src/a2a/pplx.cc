// One copy per (row, expert), sorted by expert where the rows come from; counts travel with the flag; rows
// are taken in chunks, so that experts start before all rows are routed and buffers stay small. Results come
// home as K rows.
//
// Beside its rows a rank publishes, for each slot, how many of the piece's rows are for it, and the rows'
// numbers sorted by slot. A receiver copies nothing and scans nobody's choices: it reads the counts of its
// own slots and the entries of its own part of the list. (The original sends count + 1, because its flags
// start at 0; here the round says that counts are there. It cannot take a row with fewer than K choices; here
// such a row has fewer entries.)
//
// Bytes drawn from other ranks, X of a row's K choices being elsewhere, L local slots: X (H b + 4) and X H 4
// by the formula; here D H b + 4 X + 4 (L + 1) for each peer's piece, and X (H 4 + 4).
#include <algorithm>
#include <cstdint>

#include "a2a/backends.h"
#include "a2a/by_k.h"

namespace cadre::a2a {
namespace {

struct Parts : ByKParts {
  Parts(const Options& o, const fabric::GroupHosts& hosts) : ByKParts(o, hosts, Algorithm::kPplx) {
    const auto pieces = static_cast<size_t>(num_pieces);
    counts = regions.Add(pieces * static_cast<size_t>(o.layout.num_slots) * 4);
    firsts = regions.Add(pieces * static_cast<size_t>(o.layout.num_ranks) * 4);
    entries = regions.Add(static_cast<size_t>(o.max_rows * o.top_k) * 4);
    int64_t fixed = 0;  // firsts and counts for a host
    for (const auto& host : hosts.members)
      fixed = std::max<int64_t>(fixed, host.count + SlotsOfHost(o.layout, host).count);
    AddMail(o, hosts,
            {.rows = rows,
             .row_bytes = o.hidden * DTypeBytes(o.act_type),
             .notes_per_row = o.top_k,
             .notes_per_host = fixed});
  }
  size_t counts;   // [pieces, slots]
  size_t firsts;   // [pieces, ranks] where each rank's part of the piece's entries begins
  size_t entries;  // [Tmax, K] row numbers within the piece, by slot
};

class Pplx final : public ByKExchange {
 public:
  Pplx(const Options& options, const Parts& parts, std::unique_ptr<RankSegment> segment)
      : ByKExchange(options, parts, Algorithm::kPplx, std::move(segment)),
        lists_(parts),
        list_begins_(counts_.size() + 1),
        offsets_(static_cast<size_t>(num_local_slots()) + 1),
        begins_(static_cast<size_t>(num_ranks_) * static_cast<size_t>(num_local_slots())) {}

 protected:
  std::string Idea() const override {
    return "rows listed per expert, counts with the flag; K expert rows f32 home, summed by k";
  }
  int64_t header_bytes() const override { return 4; }

  void SendPiece(int64_t piece_idx, RowRange piece, const Routing& routing) override {
    const std::span slots(routing.slots, static_cast<size_t>(piece.count * options_.top_k));
    int32_t* places = places_.data() + piece.begin * options_.top_k;
    NumberWithinSlots(slots, counts_, places);
    ListBySlot(slots, options_.top_k, counts_, places,
               Own<int32_t>(lists_.entries) + piece.begin * options_.top_k, list_begins_);
    std::ranges::copy(counts_, Own<int32_t>(lists_.counts) + piece_idx * options_.layout.num_slots);
    auto* firsts = Own<int32_t>(lists_.firsts) + piece_idx * num_ranks_;
    for (int r = 0; r < num_ranks_; ++r)
      firsts[r] = list_begins_[static_cast<size_t>(options_.layout.Begin(r))];
    mail_.Pack(piece_idx, routing, [&](int host, std::span<const int32_t> rows, int32_t* notes) {
      return WriteNotes(host, piece, rows, notes);
    });
    segment_->PublishPiece(kDispatchFlag);
  }

  Result<RowTable> BuildTable() override {
    CADRE_TRY(LayOut());
    const auto num_places = static_cast<size_t>(offsets_.back());
    if (rows_.size() < num_places) {
      rows_.resize(num_places);
      ones_.resize(num_places, 1.0f);  // the home rank weighs
    }
    for (int s = 0; s < num_ranks_; ++s) {
      if (segment_->HasPiece(s)) CADRE_TRY(Place(s));
    }
    return RowTable{
        .num_rows = offsets_.back(), .offsets = offsets_, .rows = rows_.data(), .row_weights = ones_.data()};
  }
  std::span<const int32_t> BeginsOf(int source) const override {
    return std::span(begins_).subspan(Index(source, 0), static_cast<size_t>(num_local_slots()));
  }

 private:
  size_t Index(int source, int32_t local) const {
    return static_cast<size_t>(source) * static_cast<size_t>(num_local_slots()) + static_cast<size_t>(local);
  }

  // What a source says of the rows for this rank's slots.
  struct Listed {
    const int32_t* counts = nullptr;   // [local slots]
    std::span<const int32_t> entries;  // rows, by slot
    int64_t first = 0;                 // where this rank's entries begin
  };
  Listed ListedBy(int source) const {
    if (mail_.IsHere(source)) {
      const int64_t begin = segment_->chunk() * parts_.chunk_rows * options_.top_k;
      const auto most = static_cast<size_t>(segment_->PieceOfRank(source).count * options_.top_k);
      return {Peer<int32_t>(source, lists_.counts) + segment_->chunk() * options_.layout.num_slots +
                  options_.layout.Begin(me_),
              {Peer<int32_t>(source, lists_.entries) + begin, most},
              (Peer<int32_t>(source, lists_.firsts) + segment_->chunk() * num_ranks_)[me_]};
    }
    const auto notes = mail_.From(source).notes;
    const SlotRange slots = SlotsOfHost(options_.layout, here_);
    const auto fixed = static_cast<size_t>(here_.count + slots.count);
    return {notes.data() + here_.count + (options_.layout.Begin(me_) - slots.begin), notes.subspan(fixed),
            notes[static_cast<size_t>(me_ - here_.begin)]};
  }
  // Whether as many entries came as the counts say.
  bool NotesFit(int source) const {
    const auto notes = mail_.From(source).notes;
    const auto fixed = static_cast<size_t>(here_.count + SlotsOfHost(options_.layout, here_).count);
    if (notes.size() < fixed) return false;
    int64_t entries = 0;
    for (const int32_t count : notes.first(fixed).subspan(static_cast<size_t>(here_.count))) entries += count;
    return static_cast<int64_t>(notes.size() - fixed) == entries;
  }

  // For a host: where each of its ranks' entries begin, counts of its slots, and entries: numbers of the rows
  // that go there, by slot.
  size_t WriteNotes(int host, RowRange piece, std::span<const int32_t> rows, int32_t* notes) {
    const fabric::MemberRange there = segment_->fabric().members(host);
    const SlotRange slots = SlotsOfHost(options_.layout, there);
    const auto first = static_cast<size_t>(slots.begin);
    const int32_t begin = list_begins_[first], end = list_begins_[first + static_cast<size_t>(slots.count)];
    places_there_.resize(static_cast<size_t>(piece.count));
    for (size_t i = 0; i < rows.size(); ++i)
      places_there_[static_cast<size_t>(rows[i])] = static_cast<int32_t>(i);
    int32_t* to = notes;
    for (int r = there.begin; r < there.begin + there.count; ++r)
      *to++ = list_begins_[static_cast<size_t>(options_.layout.Begin(r))] - begin;
    to = std::copy_n(counts_.begin() + slots.begin, slots.count, to);
    const int32_t* entries = Own<int32_t>(lists_.entries) + piece.begin * options_.top_k;
    for (int32_t i = begin; i < end; ++i) *to++ = places_there_[static_cast<size_t>(entries[i])];
    return static_cast<size_t>(to - notes);
  }

  // From the counts alone: where each (slot, source) begins in the table. Counts per slot first, then their
  // running sum, each source's share of a slot on the way: each pass goes along one source's array.
  Status LayOut() {
    std::ranges::fill(offsets_, 0);
    for (int s = 0; s < num_ranks_; ++s) {
      int32_t* before = begins_.data() + Index(s, 0);
      std::copy(offsets_.begin() + 1, offsets_.end(), before);
      if (!segment_->HasPiece(s)) continue;
      if (!mail_.IsHere(s) && !NotesFit(s)) return mail_.FailNotes(s);
      const int32_t* counts = ListedBy(s).counts;
      int32_t most = 0;
      for (int32_t local = 0; local < num_local_slots(); ++local) {
        if (counts[local] < 0) most = INT32_MAX;
        most = std::max(most, counts[local]);
        offsets_[static_cast<size_t>(local) + 1] += counts[local];
      }
      if (most > parts_.chunk_rows) {
        return Fail(Code::kDataLoss, "rank {} sent counts of rows for slots that a chunk of {} cannot have",
                    segment_->fabric().world_rank(s), parts_.chunk_rows);
      }
    }
    for (size_t i = 1; i < offsets_.size(); ++i) offsets_[i] += offsets_[i - 1];
    for (int s = 0; s < num_ranks_; ++s) {
      int32_t* begins = begins_.data() + Index(s, 0);
      for (int32_t local = 0; local < num_local_slots(); ++local)
        begins[local] += offsets_[static_cast<size_t>(local)];
    }
    return {};
  }

  Status Place(int source_idx) {
    const bool here = mail_.IsHere(source_idx);
    const Source source =
        here ? segment_->SourceOf(source_idx)
             : Source{.rows = mail_.From(source_idx).rows, .num_rows = mail_.From(source_idx).num_rows};
    const auto [counts, entries, first] = ListedBy(source_idx);
    seen_.assign(static_cast<size_t>(source.num_rows), false);
    int64_t at = first, num_rows = 0;
    for (int32_t local = 0; local < num_local_slots(); ++local) {
      auto place = static_cast<size_t>(begins_[Index(source_idx, local)]);
      for (int32_t i = 0; i < counts[local]; ++i, ++at) {
        if (at < 0 || at >= std::ssize(entries) || entries[static_cast<size_t>(at)] < 0 ||
            entries[static_cast<size_t>(at)] >= source.num_rows) {
          return Fail(Code::kDataLoss, "rank {} sent entry {} of its list, of {} rows",
                      segment_->fabric().world_rank(source_idx), at, source.num_rows);
        }
        const auto row = static_cast<size_t>(entries[static_cast<size_t>(at)]);
        rows_[place++] = source.rows + static_cast<int64_t>(row) * segment_->row_bytes();
        num_rows += seen_[row] ? 0 : 1;
        seen_[row] = true;
      }
    }
    if (source_idx == me_) return {};
    const int64_t copies = at - first;
    bytes_.dispatch_algorithmic += copies * (wire_bytes() + header_bytes());
    bytes_.dispatch_physical += num_rows * wire_bytes() + copies * 4 + 4 * (num_local_slots() + 1);
    return {};
  }

  Parts lists_;
  std::vector<int32_t> list_begins_;  // [slots + 1] of the piece sent last
  std::vector<int32_t> offsets_;      // [local slots + 1]
  std::vector<int32_t> begins_;       // [sources, local slots]
  std::vector<const void*> rows_;
  std::vector<float> ones_;
  std::vector<bool> seen_;             // rows of a source that were counted
  std::vector<int32_t> places_there_;  // [rows of a piece] place of a row in what goes to a host
};

}  // namespace

int64_t PplxBytes(const Options& options, const fabric::GroupHosts& hosts) {
  return Parts(options, hosts).TotalBytes(hosts);
}

Result<std::unique_ptr<AllToAll>> CreatePplx(const Options& options, const fabric::GroupHosts& hosts) {
  const Parts parts(options, hosts);
  CADRE_ASSIGN(auto segment, RankSegment::Open(options, parts, parts.chunk_rows));
  return std::make_unique<Pplx>(options, parts, std::move(segment));
}

}  // namespace cadre::a2a
