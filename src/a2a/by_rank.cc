#include "a2a/by_rank.h"

#include <algorithm>
#include <array>

namespace cadre::a2a {

ByRankParts::ByRankParts(const Options& o, Algorithm algorithm)
    : SegmentParts(o), chunk_rows(ChunkRows(o, algorithm)), num_pieces(NumPieces(o.max_rows, chunk_rows)) {
  const auto ranks = static_cast<size_t>(o.layout.num_ranks);
  const auto pieces = static_cast<size_t>(num_pieces), per_piece = static_cast<size_t>(chunk_rows);
  counts = regions.Add(pieces * ranks * sizeof(int32_t));
  lists = regions.Add(pieces * ranks * per_piece * sizeof(int32_t));
  begins = regions.Add(ranks * sizeof(int32_t));
  partials = regions.Add((ranks - 1) * per_piece * static_cast<size_t>(o.hidden) * sizeof(float));
}

ByRankExchange::ByRankExchange(const Options& options, const ByRankParts& parts, Algorithm algorithm,
                               std::unique_ptr<RankSegment> segment)
    : SegmentExchange(options, algorithm, std::move(segment)),
      parts_(parts),
      builder_(options.top_k, segment_->row_bytes(), options.layout.Begin(me_), options.layout.Count(me_),
               options.layout.num_slots),
      sources_(static_cast<size_t>(num_ranks_)),
      peer_begin_(sources_.size()) {}

size_t ByRankExchange::ListOffset(int64_t piece, int target) const {
  return parts_.lists + static_cast<size_t>((piece * num_ranks_ + target) * parts_.chunk_rows) * 4;
}

Status ByRankExchange::Send(const Routing& routing) {
  const auto piece = static_cast<size_t>(segment_->num_pieces_taken());
  const std::span slots(routing.slots, static_cast<size_t>(routing.num_rows * options_.top_k));
  CADRE_TRY(CheckSlots(slots, options_.layout.num_slots));
  segment_->TakePiece(routing);
  if (sent_.size() <= piece) sent_.resize(piece + 1, GroupLists(options_.top_k, options_.layout));
  GroupLists& lists = sent_[piece];
  lists.Build(routing.slots, routing.num_rows);
  auto* counts = Own<int32_t>(parts_.counts) + piece * static_cast<size_t>(num_ranks_);
  for (int r = 0; r < num_ranks_; ++r) counts[r] = static_cast<int32_t>(lists.RowsFor(r).size());
  SendCounts(static_cast<int64_t>(piece), slots);
  for (int r = 0; r < num_ranks_; ++r) {
    if (r != me_)
      std::ranges::copy(lists.RowsFor(r), Own<int32_t>(ListOffset(static_cast<int64_t>(piece), r)));
  }
  segment_->PublishPiece(kDispatchFlag);
  return {};
}

Result<RowTable> ByRankExchange::Receive() {
  CADRE_TRY(ReceiveCounts());
  CADRE_TRY(segment_->AwaitPieces(kDispatchFlag));
  const int64_t chunk = segment_->chunk();
  for (int s = 0; s < num_ranks_; ++s) {
    Source& source = sources_[static_cast<size_t>(s)];
    source = segment_->SourceOf(s);
    source.listed = true;
    if (!segment_->HasPiece(s)) continue;
    if (s == me_) {
      source.list = sent_[static_cast<size_t>(chunk)].RowsFor(me_);
      continue;
    }
    const int32_t count = CountsOf(s, chunk)[me_];
    if (count < 0 || count > source.num_rows) {
      return Fail(Code::kDataLoss, "rank {} sent a list of {} of its {} rows",
                  segment_->fabric().world_rank(s), count, source.num_rows);
    }
    source.list = {Peer<int32_t>(s, ListOffset(chunk, me_)), static_cast<size_t>(count)};
    CountDispatch(source.list.size());
  }
  const auto offsets = expected_offsets();
  CADRE_TRY(offsets.empty() ? builder_.Build(sources_) : builder_.Build(sources_, offsets));
  return builder_.table();
}

void ByRankExchange::CountDispatch(size_t num_rows) {
  const auto rows = static_cast<int64_t>(num_rows);
  bytes_.dispatch_algorithmic += rows * (segment_->row_bytes() + header_bytes());
  bytes_.dispatch_physical += rows * (segment_->row_bytes() + physical_header_bytes()) + 4;
}

int64_t ByRankExchange::BlockBegin(int at, int home) const {
  return (home < at ? home : home - 1) * parts_.chunk_rows;
}

size_t ByRankExchange::TakeOwn(int64_t entry, const float** terms) const {
  size_t n = 0;
  for (const int32_t place : builder_.PlacesOf(me_, entry))
    terms[n++] = expert_rows_ + place * options_.hidden;
  return n;
}

Status ByRankExchange::SendResults(const float* expert_rows) {
  expert_rows_ = expert_rows;
  CADRE_TRY(segment_->AwaitConsumed());
  const int64_t width = options_.hidden;
  auto* partials = Own<float>(parts_.partials);
  auto* begins = Own<int32_t>(parts_.begins);
  int64_t next = 0;
  for (int home = 0; home < num_ranks_; ++home) {
    if (home == me_) continue;
    const auto num_rows = sources_[static_cast<size_t>(home)].num_entries();
    const int64_t begin = contiguous() ? next : BlockBegin(me_, home);
    if (contiguous()) begins[home] = static_cast<int32_t>(next);
    next += num_rows;
    ForRows(options_.device, num_rows, width * 4 * (options_.top_k + 1), [&](int64_t i) {
      std::array<const float*, kMaxTopK> own;
      size_t n = 0;
      for (const int32_t place : builder_.PlacesOf(home, i)) own[n++] = expert_rows_ + place * width;
      SumRow({{}, {own.data(), n}, {}}, width, partials + (begin + i) * width, false);
    });
  }
  segment_->PublishCombine();
  return {};
}

Status ByRankExchange::ReceiveResults(float* out, bool accumulate) {
  CADRE_TRY(segment_->AwaitCombine());
  const RowRange piece = PieceOf(segment_->num_rows(), segment_->chunk_rows(), segment_->chunk());
  if (piece.count > 0) {
    const GroupLists& lists = sent_[static_cast<size_t>(segment_->chunk())];
    const int64_t width = options_.hidden;
    for (int r = 0; r < num_ranks_; ++r) {
      const auto num_rows = static_cast<int64_t>(lists.RowsFor(r).size());
      if (r == me_ || num_rows == 0) continue;
      peer_begin_[static_cast<size_t>(r)] =
          contiguous() ? Peer<int32_t>(r, parts_.begins)[me_] : BlockBegin(r, me_);
      bytes_.combine_algorithmic += num_rows * width * 4;
      bytes_.combine_physical += num_rows * width * 4 + (contiguous() ? 4 : 0);
    }
    ForRows(options_.device, piece.count, width * 4 * (std::min(num_ranks_, options_.top_k) + 1),
            [&](int64_t t) { SumOwnRow(t, lists, out + (piece.begin + t) * width, accumulate); });
  }
  segment_->FinishChunk();
  return {};
}

// The home rank's sum: its stops in rank order, cut where a host ends.
void ByRankExchange::SumOwnRow(int64_t t, const GroupLists& lists, float* out, bool accumulate) const {
  std::array<const float*, kMaxRanks> partials;
  std::array<const float*, kMaxTopK> own;
  const auto stops = lists.StopsOf(t);
  if (ranks_per_host() >= num_ranks_)
    return SumRow(TermsOf(stops, partials.data(), own.data()), options_.hidden, out, accumulate);
  std::vector<RowTerms> hosts;
  for (size_t begin = 0, end = 0; begin < stops.size(); begin = end) {
    const int host = stops[begin].group / ranks_per_host();
    while (end < stops.size() && stops[end].group / ranks_per_host() == host) ++end;
    hosts.push_back(TermsOf(stops.subspan(begin, end - begin), partials.data() + begin, own.data()));
  }
  SumRowByHost(hosts, options_.hidden, out, accumulate);
}

RowTerms ByRankExchange::TermsOf(std::span<const GroupLists::Stop> stops, const float** partials,
                                 const float** own) const {
  RowTerms terms;
  size_t n = 0, before = 0;
  bool own_seen = false;
  for (const auto& stop : stops) {
    if (stop.group == me_) {
      terms.own = {own, TakeOwn(stop.place, own)};
      own_seen = true;
      continue;
    }
    partials[n++] = Peer<float>(stop.group, parts_.partials) +
                    (peer_begin_[static_cast<size_t>(stop.group)] + stop.place) * options_.hidden;
    before += own_seen ? 0 : 1;
  }
  terms.before = {partials, before};
  terms.after = {partials + before, n - before};
  return terms;
}

}  // namespace cadre::a2a
