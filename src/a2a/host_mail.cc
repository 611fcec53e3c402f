#include "a2a/host_mail.h"

#include <algorithm>
#include <array>
#include <numeric>

#include "a2a/algorithms.h"

namespace cadre::a2a {
namespace {

enum Kind : int { kDispatch, kCombine, kSide };
constexpr std::byte kZeros[64] = {};

size_t RoundUp(size_t bytes) {
  return (bytes + 63) / 64 * 64;
}

int MostRanks(const fabric::GroupHosts& hosts) {
  return std::ranges::max(hosts.members, {}, &fabric::MemberRange::count).count;
}

// Results that may come back for a row from one host.
int64_t ResultsPerRow(const Options& o, const fabric::GroupHosts& hosts, bool by_k) {
  if (!by_k) return 1;
  if (o.layout.sharded) return int64_t{std::min(o.top_k, o.layout.num_slots)} * MostRanks(hosts);
  int32_t slots = 0;
  for (const auto& host : hosts.members) slots = std::max(slots, SlotsOfHost(o.layout, host).count);
  return std::min(o.top_k, slots);
}

int64_t ResultBytes(const Options& o, bool by_k) {
  return o.hidden * (by_k ? 4 : DTypeBytes(o.act_type));
}

}  // namespace

struct HostMail::Head {
  uint32_t num_rows, num_results, note_words;
  uint32_t list_begin, note_begin;  // within the piece's
};
struct HostMail::MessageHead {
  uint32_t exchange_rows, num_rows, note_words;
};

SlotRange SlotsOfHost(const eplb::SlotLayout& layout, fabric::MemberRange host) {
  if (layout.sharded) return {0, layout.num_slots};
  const int32_t begin = layout.Begin(host.begin);
  return {begin, layout.Begin(host.begin + host.count) - begin};
}

int64_t LandingBytesPerRow(const Options& o, const fabric::GroupHosts& hosts, bool by_k) {
  const int64_t most = MostRanks(hosts);
  const int64_t fewest = std::ranges::min(hosts.members, {}, &fabric::MemberRange::count).count;
  const int64_t carried = (hosts.size() + fewest - 1) / fewest;
  const int64_t row = o.hidden * DTypeBytes(o.act_type) + o.top_k * 12;
  return 2 * carried * most * (row + ResultsPerRow(o, hosts, by_k) * ResultBytes(o, by_k));
}

MailParts::MailParts(const Options& o, const fabric::GroupHosts& hosts, int64_t chunk_rows,
                     const MailSpec& mail, SegmentParts& parts)
    : spec(mail), result_bytes(ResultBytes(o, mail.by_k)) {
  if (hosts.size() < 2) return;
  const auto num_hosts = static_cast<size_t>(hosts.size()), most = static_cast<size_t>(MostRanks(hosts));
  const auto rows = static_cast<size_t>(std::min(chunk_rows, o.max_rows));
  const auto num_pieces = static_cast<size_t>(NumPieces(o.max_rows, chunk_rows));
  num_places = num_pieces > 1 ? 2 : 1;
  if (!mail.all_rows) {
    const size_t copies =
        rows * (o.layout.sharded ? num_hosts : std::min(static_cast<size_t>(o.top_k), num_hosts));
    list_stride = copies * 4;
    note_stride = (copies * static_cast<size_t>(mail.notes_per_row) +
                   num_hosts * static_cast<size_t>(mail.notes_per_host)) *
                  4;
  }
  message_head_stride = RoundUp(most * sizeof(HostMail::MessageHead));
  heads = parts.regions.Add(num_pieces * num_hosts * sizeof(HostMail::Head));
  lists = parts.regions.Add(num_pieces * list_stride);
  notes = parts.regions.Add(num_pieces * note_stride);
  message_heads = parts.regions.Add(num_places * num_hosts * message_head_stride);

  const auto note_words = static_cast<size_t>(mail.notes_per_host) +
                          rows * static_cast<size_t>(mail.all_rows ? 2 * o.top_k : mail.notes_per_row);
  notes_place = message_head_stride;
  dispatch_stride = notes_place + RoundUp(most * note_words * 4) +
                    RoundUp(most * rows * static_cast<size_t>(mail.row_bytes));
  combine_begin = num_places * dispatch_stride;
  combine_stride = RoundUp(most * rows * static_cast<size_t>(ResultsPerRow(o, hosts, mail.by_k)) *
                           static_cast<size_t>(result_bytes));
  side_begin = combine_begin + num_places * combine_stride;
  side_stride = RoundUp(mail.side_bytes);
  parts.num_channels = (mail.side_bytes > 0 ? 3 : 2) * static_cast<int>(num_places);
  parts.landing_bytes = side_begin + num_places * side_stride;
  parts.message_bytes = std::max({dispatch_stride, combine_stride, side_stride});
}

HostMail::HostMail(const Options& options, const MailParts& parts, RankSegment& segment)
    : parts_(parts),
      segment_(segment),
      fabric_(segment.fabric()),
      layout_(options.layout),
      top_k_(options.top_k),
      me_(segment.rank()),
      num_hosts_(fabric_.num_hosts()),
      here_(fabric_.local()),
      carrier_(fabric_.carries_any()),
      posted_(options.first_round - 1),
      side_posted_(posted_),
      parcels_(static_cast<size_t>(segment.size())),
      due_(static_cast<size_t>(num_hosts_)),
      due_before_(due_.size()),
      results_(due_.size()) {}

HostMail::Head* HostMail::HeadOf(int rank, int64_t piece, int host) const {
  auto* heads = reinterpret_cast<Head*>(const_cast<std::byte*>(Peer(rank, parts_.heads)));
  return heads + piece * num_hosts_ + host;
}

void HostMail::Pack(int64_t piece_idx, const Routing& routing, WriteNotes write) {
  if (!any()) return;
  const auto piece = static_cast<size_t>(piece_idx);
  if (lists_.size() <= piece) lists_.resize(piece + 1, GroupLists(top_k_, layout_, fabric_.hosts().members));
  GroupLists& lists = lists_[piece];
  lists.Build(routing.slots, routing.num_rows);
  for (auto n = static_cast<int32_t>(all_.size()); n < routing.num_rows; ++n) all_.push_back(n);
  auto* list = reinterpret_cast<int32_t*>(fabric_.own() + parts_.lists + piece * parts_.list_stride);
  auto* notes = reinterpret_cast<int32_t*>(fabric_.own() + parts_.notes + piece * parts_.note_stride);
  uint32_t list_end = 0, note_end = 0;
  for (int h = 0; h < num_hosts_; ++h) {
    if (h == fabric_.own_host()) continue;
    const auto some = lists.RowsFor(h);
    const auto rows =
        parts_.spec.all_rows ? std::span(all_).first(static_cast<size_t>(routing.num_rows)) : some;
    Head& head = *HeadOf(me_, piece_idx, h);
    head = {.num_rows = static_cast<uint32_t>(rows.size()),
            .num_results = static_cast<uint32_t>(parts_.spec.all_results ? rows.size() : some.size()),
            .note_words = 0,
            .list_begin = list_end,
            .note_begin = note_end};
    if (parts_.spec.by_k) {
      const SlotRange there = SlotsOfHost(layout_, fabric_.members(h));
      const auto choices = std::count_if(
          routing.slots, routing.slots + routing.num_rows * top_k_,
          [&](int32_t slot) { return slot >= there.begin && slot < there.begin + there.count; });
      const int copies = layout_.sharded ? fabric_.members(h).count : 1;
      head.num_results = static_cast<uint32_t>(choices) * static_cast<uint32_t>(copies);
    }
    if (parts_.spec.all_rows) {
      head.note_words = head.num_rows * 2 * static_cast<uint32_t>(top_k_);
      continue;
    }
    std::ranges::copy(rows, list + list_end);
    head.note_words = static_cast<uint32_t>(write(h, rows, notes + note_end));
    list_end += head.num_rows;
    note_end += head.note_words;
  }
}

// Each place has a channel of its own: a fast host may have filled the other one, and a flag has the size of
// its last message only.
int HostMail::Channel(int kind, int64_t chunk) const {
  return kind * static_cast<int>(parts_.num_places) + static_cast<int>(Place(chunk));
}

bool HostMail::AllRaised(Flag flag, int64_t chunk) const {
  for (int r = here_.begin; r < here_.begin + here_.count; ++r) {
    if (chunk > 0 && !segment_.HasPiece(r, chunk)) continue;
    if (!fabric_.Peek(r, flag, segment_.RoundOf(chunk))) return false;
  }
  return true;
}

void HostMail::TryPost(int64_t chunk) {
  if (!any() || !carrier_ || static_cast<int32_t>(posted_ - segment_.RoundOf(chunk)) >= 0) return;
  if (AllRaised(kDispatchFlag, chunk)) Post(chunk);
}

void HostMail::Post(int64_t chunk) {
  posted_ = segment_.RoundOf(chunk);
  fabric_.PostAll(Channel(kDispatch, chunk), posted_, Place(chunk) * parts_.dispatch_stride,
                  [&](int host, std::vector<fabric::Piece>& pieces) { GatherRows(host, chunk, pieces); });
}

void HostMail::GatherRows(int host, int64_t chunk, std::vector<fabric::Piece>& pieces) const {
  const MailSpec& spec = parts_.spec;
  std::byte* at = fabric_.own() + parts_.message_heads +
                  (Place(chunk) * static_cast<size_t>(num_hosts_) + static_cast<size_t>(host)) *
                      parts_.message_head_stride;
  auto* heads = reinterpret_cast<MessageHead*>(at);
  pieces.push_back({at, parts_.message_head_stride});
  size_t words = 0;
  const auto each = [&](auto&& member) {
    for (int r = here_.begin; r < here_.begin + here_.count; ++r) {
      const auto rows = static_cast<int64_t>(*fabric_.Peek(r, kDispatchFlag, segment_.RoundOf(0)));
      member(r, rows, PieceOf(rows, segment_.chunk_rows(), chunk),
             chunk < NumPieces(rows, segment_.chunk_rows()));
    }
  };
  each([&](int r, int64_t rows, RowRange piece, bool some) {
    MessageHead& head = heads[r - here_.begin] = {static_cast<uint32_t>(rows), 0, 0};
    if (!some) return;
    const Head& own = *HeadOf(r, chunk, host);
    head.num_rows = own.num_rows;
    head.note_words = own.note_words;
    words += own.note_words;
    if (spec.all_rows) {
      const Source source = segment_.PieceAt(r, piece);
      const size_t bytes = size_t{own.note_words} * 2;
      pieces.push_back({reinterpret_cast<const std::byte*>(source.slots), bytes});
      pieces.push_back({reinterpret_cast<const std::byte*>(source.weights), bytes});
      return;
    }
    pieces.push_back(
        {Peer(r, parts_.notes) + static_cast<size_t>(chunk) * parts_.note_stride + size_t{own.note_begin} * 4,
         size_t{own.note_words} * 4});
  });
  pieces.push_back({kZeros, RoundUp(words * 4) - words * 4});
  each([&](int r, int64_t, RowRange piece, bool some) {
    if (!some) return;
    const Head& own = *HeadOf(r, chunk, host);
    const std::byte* rows = Peer(r, spec.rows) + piece.begin * spec.row_bytes;
    const auto* list = reinterpret_cast<const int32_t*>(Peer(r, parts_.lists) +
                                                        static_cast<size_t>(chunk) * parts_.list_stride) +
                       own.list_begin;
    for (uint32_t i = 0, end = 0; i < own.num_rows; i = end) {  // neighbours in one piece
      const int64_t first = spec.all_rows ? 0 : list[i];
      for (end = i + 1; end < own.num_rows && (spec.all_rows || list[end] == list[end - 1] + 1);) ++end;
      pieces.push_back({rows + first * spec.row_bytes, static_cast<size_t>((end - i) * spec.row_bytes)});
    }
  });
}

Status HostMail::Receive() {
  if (!any()) return {};
  const int64_t chunk = segment_.chunk();
  if (carrier_ && static_cast<int32_t>(posted_ - segment_.round()) < 0) Post(chunk);
  std::array<uint32_t, kMaxRanks> bytes;
  CADRE_TRY(fabric_.AwaitHosts(Channel(kDispatch, chunk), segment_.round(), bytes.data(),
                               segment_.Context("dispatch")));
  for (int h = 0; h < num_hosts_; ++h) {
    if (h == fabric_.own_host()) continue;
    CADRE_TRY(Take(h, bytes[static_cast<size_t>(h)]));
    // Now, not when the results come: then a fast rank may be at its next exchange's heads.
    int64_t& due = due_[static_cast<size_t>(h)] = 0;
    for (int r = here_.begin; r < here_.begin + here_.count; ++r) {
      if (r == me_) due_before_[static_cast<size_t>(h)] = due;
      due += NumDue(r, h);
    }
  }
  return {};
}

// Another host's message, in place.
Status HostMail::Take(int host, uint32_t got) {
  const int64_t chunk = segment_.chunk();
  const auto [begin, count] = fabric_.members(host);
  const std::byte* at = fabric_.landing(host) + Place(chunk) * parts_.dispatch_stride;
  const auto* heads = reinterpret_cast<const MessageHead*>(at);
  const auto fail = [&] {
    return Fail(Code::kDataLoss, "{} sent a dispatch of {} bytes, which its head contradicts",
                fabric::NameHost(fabric_.hosts().entries[static_cast<size_t>(host)]), got);
  };
  if (got < parts_.notes_place) return fail();
  size_t rows = 0, words = 0;
  for (int j = 0; j < count; ++j) {
    if (chunk == 0) CADRE_TRY(segment_.NoteRows(begin + j, heads[j].exchange_rows));
    const int64_t most = segment_.PieceOfRank(begin + j).count;
    if (heads[j].num_rows > most) return fail();
    rows += heads[j].num_rows;
    words += heads[j].note_words;
  }
  const std::byte* row_data = at + parts_.notes_place + RoundUp(words * 4);
  if (got != static_cast<size_t>(row_data - at) + rows * static_cast<size_t>(parts_.spec.row_bytes))
    return fail();
  const auto* notes = reinterpret_cast<const int32_t*>(at + parts_.notes_place);
  for (int j = 0; j < count; ++j) {
    parcels_[static_cast<size_t>(begin + j)] = {row_data, {notes, heads[j].note_words}, heads[j].num_rows};
    row_data += heads[j].num_rows * parts_.spec.row_bytes;
    notes += heads[j].note_words;
  }
  CountWire(host, static_cast<int64_t>(rows) * parts_.spec.row_bytes + static_cast<int64_t>(words) * 4, 0);
  return {};
}

Status HostMail::FailNotes(int rank) const {
  return Fail(Code::kDataLoss, "rank {} sent {} words beside its {} rows, which need another number",
              fabric_.world_rank(rank), From(rank).notes.size(), From(rank).num_rows);
}

int64_t HostMail::NumDue(int rank, int host) const {
  return segment_.HasPiece(rank) ? HeadOf(rank, segment_.chunk(), host)->num_results : 0;
}

Status HostMail::TradeResults(fabric::Fabric::Gather gather) {
  const size_t place = parts_.combine_begin + Place(segment_.chunk()) * parts_.combine_stride;
  std::array<uint32_t, kMaxRanks> bytes;
  CADRE_TRY(fabric_.Trade(Channel(kCombine, segment_.chunk()), segment_.round(), place, bytes.data(),
                          segment_.Context("combine"), gather));
  for (int h = 0; h < num_hosts_; ++h) {
    if (h == fabric_.own_host()) continue;
    const int64_t all = due_[static_cast<size_t>(h)], before = due_before_[static_cast<size_t>(h)];
    if (bytes[static_cast<size_t>(h)] != static_cast<uint64_t>(all * parts_.result_bytes)) {
      return Fail(Code::kDataLoss, "{} sent {} bytes of results; {} were due",
                  fabric::NameHost(fabric_.hosts().entries[static_cast<size_t>(h)]),
                  bytes[static_cast<size_t>(h)], all * parts_.result_bytes);
    }
    results_[static_cast<size_t>(h)] = fabric_.landing(h) + place + before * parts_.result_bytes;
    CountWire(h, 0, all * parts_.result_bytes);
  }
  return {};
}

void HostMail::PostSide(int64_t chunk, Flag flag, bool sure, fabric::Fabric::Gather gather) {
  const uint32_t round = segment_.RoundOf(chunk);
  if (!any() || !carrier_ || static_cast<int32_t>(side_posted_ - round) >= 0) return;
  if (!sure && !AllRaised(flag, chunk)) return;
  side_posted_ = round;
  fabric_.PostAll(Channel(kSide, chunk), round, parts_.side_begin + Place(chunk) * parts_.side_stride,
                  gather);
}

Status HostMail::AwaitSide(uint32_t* bytes, const char* what) {
  return fabric_.AwaitHosts(Channel(kSide, segment_.chunk()), segment_.round(), bytes,
                            segment_.Context(what));
}

const std::byte* HostMail::SideFrom(int host) const {
  return fabric_.landing(host) + parts_.side_begin + Place(segment_.chunk()) * parts_.side_stride;
}

void HostMail::CountWire(int host, int64_t dispatch, int64_t combine) {
  if (!fabric_.carries(host)) return;
  dispatch_wire_ += dispatch;
  combine_wire_ += combine;
}

}  // namespace cadre::a2a
