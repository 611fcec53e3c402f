// No size exchange: fixed slots, one flag each way. Results come home as K rows.
//
// A rank publishes its choices as they are and raises its flag; every receiver works out by itself which of
// the rows are for its slots. In the original a row is copied to slot [expert][source rank][number] once per
// expert; here that slot is an entry of the receiver's row table, and the row is read in place. Send returns
// at once: what the original calls the receive hook is Receive, and whatever lies between costs no wait.
//
// With fp8_dispatch the rows travel as e4m3 with a scale per 128 channels (codec.h). Also a rank's own rows
// pass through it, so that a result does not depend on where its experts lie.
//
// Over hosts nothing is asked beforehand either: the landing zone has places for the most rows that can come,
// and the message has the rows that the host needs, fp8 as they are, with their choices.
//
// Over hosts nothing is asked beforehand either: the landing zone has places for the most rows that can come,
// and the message has the rows that the host needs, fp8 as they are, with their choices.
//
// Bytes drawn from other ranks, X of a row's K choices being elsewhere, w bytes of a row as it travels:
// X (w + 16) and X H 4 by the formula; here D w + 4 K for every row of the others (of another host's: those
// that came), and X (H 4 + 4), without the 4 from another host.
#include "a2a/backends.h"
#include "a2a/by_k.h"
#include "a2a/codec.h"
#include "sys/memory.h"

namespace cadre::a2a {
namespace {

struct Parts : ByKParts {
  Parts(const Options& o, const fabric::GroupHosts& hosts)
      : ByKParts(o, hosts, Algorithm::kDeepEpLowLatency) {
    MailSpec spec{.rows = rows,
                  .row_bytes = o.hidden * DTypeBytes(o.act_type),
                  .notes_per_row = o.top_k};  // the choices
    if (o.fp8_dispatch) {
      packed = regions.Add(static_cast<size_t>(o.max_rows * Fp8RowBytes(o.hidden)));
      unpacked_bytes = std::min(chunk_rows, o.max_rows) * o.layout.num_ranks * spec.row_bytes;
      spec.rows = packed;
      spec.row_bytes = Fp8RowBytes(o.hidden);
    }
    AddMail(o, hosts, spec);
  }
  size_t packed = 0;           // [Tmax] rows of Fp8RowBytes
  int64_t unpacked_bytes = 0;  // [ranks, chunk rows, hidden], private
};

class LowLatency final : public ByKExchange {
 public:
  LowLatency(const Options& options, const Parts& parts, std::unique_ptr<RankSegment> segment,
             sys::Region unpacked)
      : ByKExchange(options, parts, Algorithm::kDeepEpLowLatency, std::move(segment)),
        packed_(parts.packed),
        unpacked_(std::move(unpacked)),
        builder_(options.top_k, segment_->row_bytes(), options.layout.Begin(me_), num_local_slots(),
                 options.layout.num_slots),
        sources_(static_cast<size_t>(num_ranks_)) {}

 protected:
  std::string Idea() const override {
    return Format(
        "no size exchange, fixed slots, rows as {}; K expert rows f32 home, summed by k",
        options_.fp8_dispatch ? "fp8 (e4m3, a scale per 128 channels)" : DTypeName(options_.act_type));
  }
  int64_t wire_bytes() const override {
    return options_.fp8_dispatch ? Fp8RowBytes(options_.hidden) : segment_->row_bytes();
  }
  int64_t header_bytes() const override { return 16; }

  std::string IdeaOverHosts() const override {
    return "sent without asking, into places for the most rows; " + ByKExchange::IdeaOverHosts();
  }

  void SendPiece(int64_t piece_idx, RowRange piece, const Routing& routing) override {
    if (options_.fp8_dispatch) Pack(piece);
    mail_.Pack(piece_idx, routing, [&](int, std::span<const int32_t> rows, int32_t* notes) {
      for (const int32_t t : rows) {
        notes = std::copy_n(routing.slots + t * options_.top_k, options_.top_k, notes);
      }
      return rows.size() * static_cast<size_t>(options_.top_k);
    });
    segment_->PublishPiece(kDispatchFlag);
    NumberWithinSlots({routing.slots, static_cast<size_t>(piece.count * options_.top_k)}, counts_,
                      places_.data() + piece.begin * options_.top_k);
  }

  Result<RowTable> BuildTable() override {
    for (int s = 0; s < num_ranks_; ++s) {
      Source& source = sources_[static_cast<size_t>(s)];
      if (mail_.IsHere(s)) {
        source = segment_->SourceOf(s);
      } else {
        const HostMail::Parcel& parcel = mail_.From(s);
        source = {.rows = parcel.rows, .slots = parcel.notes.data(), .num_rows = parcel.num_rows};
        if (std::ssize(parcel.notes) != parcel.num_rows * options_.top_k)
          return std::unexpected(mail_.FailNotes(s).error());
      }
      source.weights = nullptr;  // the home rank weighs
      if (options_.fp8_dispatch)
        source.rows = unpacked_.data() + s * parts_.chunk_rows * segment_->row_bytes();
    }
    CADRE_TRY(builder_.Build(sources_));
    for (int s = 0; s < num_ranks_; ++s) {
      if (options_.fp8_dispatch) Unpack(s);
      if (s != me_) CountDispatch(s);
    }
    return builder_.table();
  }
  std::span<const int32_t> BeginsOf(int source) const override { return builder_.BeginsOf(source); }

 private:
  void Pack(RowRange piece) {
    const std::byte* rows = segment_->staged() + piece.begin * segment_->row_bytes();
    auto* packed = Own<std::byte>(packed_) + piece.begin * wire_bytes();
    ForRows(options_.device, piece.count, segment_->row_bytes() * 4, [&](int64_t i) {
      PackFp8(rows + i * segment_->row_bytes(), options_.act_type, options_.hidden,
              packed + i * wire_bytes());
    });
  }

  // The rows of `source` that have a choice here.
  void Unpack(int source) {
    const auto touched = builder_.TouchedRows(source);
    auto* rows = unpacked_.data() + source * parts_.chunk_rows * segment_->row_bytes();
    const auto* packed = mail_.IsHere(source) ? Peer<std::byte>(source, packed_) +
                                                    segment_->chunk() * parts_.chunk_rows * wire_bytes()
                                              : mail_.From(source).rows;
    ForRows(options_.device, static_cast<int64_t>(touched.size()), segment_->row_bytes() * 4, [&](int64_t i) {
      const int64_t t = touched[static_cast<size_t>(i)];
      UnpackFp8(packed + t * wire_bytes(), options_.act_type, options_.hidden,
                rows + t * segment_->row_bytes());
    });
  }

  void CountDispatch(int source) {
    int64_t copies = 0;
    const auto touched = builder_.TouchedRows(source);
    for (const int32_t t : touched) copies += static_cast<int64_t>(builder_.PlacesOf(source, t).size());
    bytes_.dispatch_algorithmic += copies * (wire_bytes() + header_bytes());
    bytes_.dispatch_physical += static_cast<int64_t>(touched.size()) * wire_bytes() +
                                sources_[static_cast<size_t>(source)].num_rows * options_.top_k * 4;
  }

  size_t packed_;
  sys::Region unpacked_;
  RowTableBuilder builder_;
  std::vector<Source> sources_;
};

}  // namespace

int64_t DeepEpLowLatencyBytes(const Options& options, const fabric::GroupHosts& hosts) {
  const Parts parts(options, hosts);
  return parts.TotalBytes(hosts) + parts.unpacked_bytes;
}

Result<std::unique_ptr<AllToAll>> CreateDeepEpLowLatency(const Options& options,
                                                         const fabric::GroupHosts& hosts) {
  const Parts parts(options, hosts);
  CADRE_ASSIGN(auto segment, RankSegment::Open(options, parts, parts.chunk_rows));
  sys::Region unpacked;
  if (parts.unpacked_bytes > 0) {
    CADRE_ASSIGN(unpacked, sys::AllocateRegion(static_cast<size_t>(parts.unpacked_bytes),
                                               {.pool = options.device.pool}));
  }
  return std::make_unique<LowLatency>(options, parts, std::move(segment), std::move(unpacked));
}

}  // namespace cadre::a2a
