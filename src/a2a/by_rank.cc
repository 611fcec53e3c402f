#include "a2a/by_rank.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace cadre::a2a {

ByRankParts::ByRankParts(const Options& o, const fabric::GroupHosts& hosts, Algorithm algorithm, bool listed,
                         size_t side_words)
    : SegmentParts(o),
      chunk_rows(ChunkRows(o, hosts, algorithm)),
      num_pieces(NumPieces(o.max_rows, chunk_rows)),
      lists_per_piece(std::ranges::max(hosts.members, {}, &fabric::MemberRange::count).count) {
  const auto ranks = static_cast<size_t>(o.layout.num_ranks);
  const auto pieces = static_cast<size_t>(num_pieces), per_piece = static_cast<size_t>(chunk_rows);
  const auto most = static_cast<size_t>(lists_per_piece);
  if (listed) {
    counts = regions.Add(pieces * most * sizeof(int32_t));
    lists = regions.Add(pieces * most * per_piece * sizeof(int32_t));
    begins = regions.Add(ranks * sizeof(int32_t));
  }
  partials = regions.Add((ranks - 1) * per_piece * static_cast<size_t>(o.hidden) * sizeof(float));
  // Beside a row: its choices, and its number in the lists of some of the host's ranks.
  const int64_t in_lists = o.layout.sharded ? lists_per_piece : std::min<int64_t>(o.top_k, lists_per_piece);
  mail = MailParts(o, hosts, chunk_rows,
                   {.rows = rows,
                    .row_bytes = o.hidden * DTypeBytes(o.act_type),
                    .notes_per_row = listed ? 2 * o.top_k + in_lists : 0,
                    .notes_per_host = listed ? lists_per_piece : 0,
                    .all_rows = !listed,
                    .side_bytes = most * side_words * 4},
                   *this);
  sums = HostSumsParts(o, hosts, chunk_rows, *this);
}

ByRankExchange::ByRankExchange(const Options& options, const ByRankParts& parts, Algorithm algorithm,
                               std::unique_ptr<RankSegment> segment)
    : SegmentExchange(options, algorithm, parts.mail, std::move(segment)),
      parts_(parts),
      builder_(options.top_k, segment_->row_bytes(), options.layout.Begin(me_), options.layout.Count(me_),
               options.layout.num_slots),
      sums_(options, parts.sums, *segment_, mail_),
      sources_(static_cast<size_t>(num_ranks_)),
      peer_begin_(sources_.size()) {}

std::string ByRankExchange::IdeaOverHosts() const {
  return Format("a row once to each host that needs it, one sum back from each host in {}",
                DTypeName(options_.act_type));
}

// `target` is of this host.
size_t ByRankExchange::ListOffset(int64_t piece, int target) const {
  return parts_.lists +
         static_cast<size_t>((piece * parts_.lists_per_piece + target - here_.begin) * parts_.chunk_rows) * 4;
}

Status ByRankExchange::Send(const Routing& routing) {
  const int64_t piece = segment_->num_pieces_taken();
  const std::span slots(routing.slots, static_cast<size_t>(routing.num_rows * options_.top_k));
  CADRE_TRY(CheckSlots(slots, options_.layout.num_slots));
  segment_->TakePiece(routing);
  if (std::ssize(sent_) <= piece)
    sent_.resize(static_cast<size_t>(piece) + 1, GroupLists(options_.top_k, options_.layout));
  GroupLists& lists = sent_[static_cast<size_t>(piece)];
  lists.Build(routing.slots, routing.num_rows);
  if (listed()) {
    auto* counts = Own<int32_t>(parts_.counts) + piece * parts_.lists_per_piece;
    for (int j = 0; j < here_.count; ++j)
      counts[j] = static_cast<int32_t>(lists.RowsFor(here_.begin + j).size());
    SendCounts(piece, slots);
    for (int r = here_.begin; r < here_.begin + here_.count; ++r) {
      if (r != me_) std::ranges::copy(lists.RowsFor(r), Own<int32_t>(ListOffset(piece, r)));
    }
  }
  mail_.Pack(piece, routing, [&](int host, std::span<const int32_t> rows, int32_t* notes) {
    return WriteNotes(routing, lists, host, rows, notes);
  });
  segment_->PublishPiece(kDispatchFlag);
  mail_.TryPost();
  return {};
}

// For a host with n ranks: how many rows each must see [n], which [sum of counts], then of all rows the
// choices and weights [rows, K] each.
size_t ByRankExchange::WriteNotes(const Routing& routing, const GroupLists& lists, int host,
                                  std::span<const int32_t> rows, int32_t* notes) {
  places_.resize(static_cast<size_t>(routing.num_rows));
  for (size_t i = 0; i < rows.size(); ++i) places_[static_cast<size_t>(rows[i])] = static_cast<int32_t>(i);
  const auto [begin, count] = segment_->fabric().members(host);
  int32_t* to = notes;
  for (int r = begin; r < begin + count; ++r) *to++ = static_cast<int32_t>(lists.RowsFor(r).size());
  for (int r = begin; r < begin + count; ++r) {
    for (const int32_t t : lists.RowsFor(r)) *to++ = places_[static_cast<size_t>(t)];
  }
  const auto choices = [&](const auto* of) {
    for (const int32_t t : rows) {
      std::memcpy(to, of + t * options_.top_k, static_cast<size_t>(options_.top_k) * 4);
      to += options_.top_k;
    }
  };
  choices(routing.slots);
  choices(routing.weights);
  return static_cast<size_t>(to - notes);
}

Result<RowTable> ByRankExchange::Receive() {
  CADRE_TRY(ReceiveCounts());
  CADRE_TRY(segment_->AwaitPieces(kDispatchFlag));
  CADRE_TRY(mail_.Receive());
  SendNextCounts();
  mail_.PostNext();
  for (int s = 0; s < num_ranks_; ++s) CADRE_TRY(mail_.IsHere(s) ? TakeSource(s) : TakeParcel(s));
  const auto offsets = expected_offsets();
  CADRE_TRY(offsets.empty() ? builder_.Build(sources_) : builder_.Build(sources_, offsets));
  if (mail_.any()) sums_.Plan(sources_);
  CountDispatch();
  return builder_.table();
}

Status ByRankExchange::TakeSource(int s) {
  const int64_t chunk = segment_->chunk();
  Source& source = sources_[static_cast<size_t>(s)];
  source = segment_->SourceOf(s);
  source.listed = listed();
  if (!listed() || !segment_->HasPiece(s)) return {};
  if (s == me_) {
    source.list = sent_[static_cast<size_t>(chunk)].RowsFor(me_);
    return {};
  }
  const int32_t count = CountsOf(s, chunk)[me_ - here_.begin];
  if (count < 0 || count > source.num_rows) {
    return Fail(Code::kDataLoss, "rank {} sent a list of {} of its {} rows", segment_->fabric().world_rank(s),
                count, source.num_rows);
  }
  source.list = {Peer<int32_t>(s, ListOffset(chunk, me_)), static_cast<size_t>(count)};
  return {};
}

// As WriteNotes wrote it; without lists only choices and weights.
Status ByRankExchange::TakeParcel(int s) {
  const HostMail::Parcel& parcel = mail_.From(s);
  Source& source = sources_[static_cast<size_t>(s)];
  source = {.rows = parcel.rows, .num_rows = parcel.num_rows, .listed = listed()};
  if (!segment_->HasPiece(s)) return {};
  std::span<const int32_t> notes = parcel.notes;
  const auto choices = static_cast<size_t>(parcel.num_rows * options_.top_k);
  if (listed()) {
    const auto ranks = static_cast<size_t>(here_.count);
    if (notes.size() < ranks) return mail_.FailNotes(s);
    size_t before = 0, total = 0;
    for (size_t j = 0; j < ranks; ++j) {
      if (notes[j] < 0 || notes[j] > parcel.num_rows) return mail_.FailNotes(s);
      if (static_cast<int>(j) == me_ - here_.begin) before = total;
      total += static_cast<size_t>(notes[j]);
    }
    if (notes.size() < ranks + total) return mail_.FailNotes(s);
    source.list =
        notes.subspan(ranks + before, static_cast<size_t>(notes[static_cast<size_t>(me_ - here_.begin)]));
    notes = notes.subspan(ranks + total);
  }
  if (notes.size() != 2 * choices) return mail_.FailNotes(s);
  source.slots = notes.data();
  source.weights = reinterpret_cast<const float*>(notes.data() + choices);
  return {};
}

void ByRankExchange::CountDispatch() {
  const int64_t row_bytes = segment_->row_bytes();
  for (int s = 0; s < num_ranks_; ++s) {
    if (s == me_ || !segment_->HasPiece(s)) continue;
    const int64_t rows = NumEntries(s);
    if (listed()) {
      bytes_.dispatch_algorithmic += rows * (row_bytes + header_bytes());
      bytes_.dispatch_physical += rows * (row_bytes + physical_header_bytes()) + 4;
    } else {
      const int64_t all = sources_[static_cast<size_t>(s)].num_rows;
      bytes_.dispatch_algorithmic += all * (row_bytes + header_bytes());
      bytes_.dispatch_physical += rows * row_bytes + all * header_bytes();
    }
  }
}

int64_t ByRankExchange::NumEntries(int source) const {
  return listed() ? sources_[static_cast<size_t>(source)].num_entries()
                  : std::ssize(builder_.TouchedRows(source));
}

std::span<const int32_t> ByRankExchange::PlacesOf(int source, int64_t entry) const {
  return builder_.PlacesOf(source,
                           listed() ? entry : builder_.TouchedRows(source)[static_cast<size_t>(entry)]);
}

int64_t ByRankExchange::BlockBegin(int at, int home) const {
  return (home < at ? home : home - 1) * parts_.chunk_rows;
}

Status ByRankExchange::SendResults(const float* expert_rows) {
  expert_rows_ = expert_rows;
  CADRE_TRY(segment_->AwaitConsumed());
  const int64_t width = options_.hidden;
  auto* partials = Own<float>(parts_.partials);
  int64_t next = 0;
  for (int home = 0; home < num_ranks_; ++home) {
    if (home == me_) continue;
    const int64_t num_rows = NumEntries(home);
    if (contiguous()) Own<int32_t>(parts_.begins)[home] = static_cast<int32_t>(next);
    const int64_t begin = contiguous() ? next : BlockBegin(me_, home);
    next += num_rows;
    ForRows(options_.device, num_rows, width * 4 * (options_.top_k + 1), [&](int64_t i) {
      std::array<const float*, kMaxTopK> own;
      size_t n = 0;
      for (const int32_t place : PlacesOf(home, i)) own[n++] = expert_rows_ + place * width;
      SumRow({{}, {own.data(), n}, {}}, width, partials + (begin + i) * width, false);
    });
  }
  segment_->PublishCombine();
  return {};
}

Status ByRankExchange::ReceiveResults(float* out, bool accumulate) {
  CADRE_TRY(segment_->AwaitCombine());
  const int64_t width = options_.hidden;
  if (mail_.any()) {
    CADRE_TRY(sums_.Trade([&](int from, int home, int32_t place) {
      return Peer<float>(from, parts_.partials) + (PartialBegin(from, home) + place) * width;
    }));
    bytes_.combine_physical += sums_.num_read() * width * 4;
  }
  const RowRange piece = PieceOf(segment_->num_rows(), segment_->chunk_rows(), segment_->chunk());
  if (piece.count > 0) {
    const GroupLists& lists = sent_[static_cast<size_t>(segment_->chunk())];
    for (int r = here_.begin; r < here_.begin + here_.count; ++r) {
      if (r != me_ && !lists.RowsFor(r).empty()) peer_begin_[static_cast<size_t>(r)] = PartialBegin(r, me_);
    }
    ForRows(options_.device, piece.count, width * 4 * (std::min(num_ranks_, options_.top_k) + 1),
            [&](int64_t t) { SumOwnRow(t, lists, out + (piece.begin + t) * width, accumulate); });
    CountCombine(lists, piece);
  }
  segment_->FinishChunk();
  return {};
}

void ByRankExchange::CountCombine(const GroupLists& lists, RowRange piece) {
  const int64_t partial = options_.hidden * 4, sum = segment_->row_bytes();
  for (int r = 0; r < num_ranks_; ++r) {
    const auto rows = static_cast<int64_t>(lists.RowsFor(r).size());
    if (r == me_) continue;
    if (!mail_.IsHere(r)) {
      if (!formula_sums_by_host()) bytes_.combine_algorithmic += rows * sum;
      continue;
    }
    bytes_.combine_algorithmic += (listed() ? rows : piece.count) * partial;
    bytes_.combine_physical += rows * partial + (contiguous() && rows > 0 ? 4 : 0);
  }
  for (int h = 0; mail_.any() && h < segment_->fabric().num_hosts(); ++h) {
    if (h == segment_->fabric().own_host()) continue;
    const int64_t rows = mail_.NumResults(h);
    if (formula_sums_by_host()) bytes_.combine_algorithmic += (listed() ? rows : piece.count) * sum;
    bytes_.combine_physical += rows * sum;
  }
}

// The home rank's sum: its stops in rank order, cut where a host ends.
void ByRankExchange::SumOwnRow(int64_t t, const GroupLists& lists, float* out, bool accumulate) const {
  const auto stops = lists.StopsOf(t);
  if (mail_.any()) return SumOwnRowOverHosts(t, stops, out, accumulate);
  std::array<const float*, kMaxRanks> partials;
  std::array<const float*, kMaxTopK> own;
  if (ranks_per_host() >= num_ranks_)
    return SumRow(TermsOf(stops, t, partials.data(), own.data()), options_.hidden, out, accumulate);
  std::vector<HostTerm> hosts;
  for (size_t begin = 0, end = 0; begin < stops.size(); begin = end) {
    const int host = stops[begin].group / ranks_per_host();
    while (end < stops.size() && stops[end].group / ranks_per_host() == host) ++end;
    hosts.push_back({TermsOf(stops.subspan(begin, end - begin), t, partials.data() + begin, own.data())});
  }
  SumRowByHost(hosts, options_.act_type, options_.hidden, out, accumulate);
}

void ByRankExchange::SumOwnRowOverHosts(int64_t t, std::span<const GroupLists::Stop> stops, float* out,
                                        bool accumulate) const {
  std::array<const float*, fabric::kMaxRanksPerHost> partials;
  std::array<const float*, kMaxTopK> own;
  std::vector<HostTerm> hosts;
  for (const GroupLists::Stop& stop : mail_.StopsOf(t)) {
    if (stop.group != segment_->fabric().own_host()) {
      hosts.push_back({{}, mail_.ResultsFrom(stop.group) + stop.place * segment_->row_bytes()});
      continue;
    }
    const auto here = [&](const GroupLists::Stop& s) { return mail_.IsHere(s.group); };
    const auto first = std::ranges::find_if(stops, here);
    const auto end = std::find_if_not(first, stops.end(), here);
    hosts.push_back({TermsOf({first, end}, t, partials.data(), own.data())});
  }
  SumRowByHost(hosts, options_.act_type, options_.hidden, out, accumulate);
}

// Of stops on this host.
RowTerms ByRankExchange::TermsOf(std::span<const GroupLists::Stop> stops, int64_t t, const float** partials,
                                 const float** own) const {
  RowTerms terms;
  size_t n = 0, before = 0;
  bool own_seen = false;
  for (const auto& stop : stops) {
    if (stop.group == me_) {
      size_t num_own = 0;
      // Without lists the table knows all rows, so a row is found by its own number.
      for (const int32_t place : builder_.PlacesOf(me_, listed() ? stop.place : t))
        own[num_own++] = expert_rows_ + place * options_.hidden;
      terms.own = {own, num_own};
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
