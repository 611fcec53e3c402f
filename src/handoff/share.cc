#include "handoff/share.h"

#include <algorithm>

namespace cadre::handoff {
namespace {

constexpr int64_t kCopyPiece = 512 << 10;  // stays in the second-level cache on its way
constexpr int64_t kCopyTurn = 2 << 20;

Error BrokenMessage(const Link& link) {
  return {Code::kDataLoss, Format("{} sent a broken message", link.name()), {}};
}

}  // namespace

Share::Share(Options options, ShareOrder order, std::function<void(const Outcome&)> ended)
    : options_(std::move(options)), order_(std::move(order)), ended_(std::move(ended)) {}

Status Share::Check() const {
  const int64_t needed = kv::BlocksFor(order_.end_token, options_.pool.layout.block_size);
  if (static_cast<int64_t>(order_.blocks.size()) < needed) {
    return Fail(Code::kInvalidArgument, "{} tokens need {} blocks; the fetch has {}", order_.end_token,
                needed, order_.blocks.size());
  }
  for (const int32_t block : order_.blocks) {
    if (block < 0 || block >= options_.pool.num_blocks) {
      return Fail(Code::kInvalidArgument, "block {} is not in the pool of {}", block,
                  options_.pool.num_blocks);
    }
  }
  if (options_.identity.layout.latent || options_.identity.num_kv_heads % order_.sources.size() == 0 ||
      order_.sources.size() % static_cast<size_t>(options_.identity.num_kv_heads) == 0) {
    return {};
  }
  return Fail(Code::kUnsupported, "{} KV heads cannot be split over {} tp ranks",
              options_.identity.num_kv_heads, order_.sources.size());
}

void Share::Start() {
  if (const Status fine = Check(); !fine) return Finish(fine);
  if (order_.first_token >= order_.end_token) return Finish({});
  for (const Slice& slice : SlicesOf(options_.identity, static_cast<int32_t>(order_.sources.size()))) {
    Part& part = parts_.emplace_back();
    part.share = this;
    part.slice = slice;
    // All ranks of a source have all notes, so the first one asked sends them.
    part.notes = options_.pool.layout.note_bytes > 0 && parts_.size() == 1;
    part.got.assign(static_cast<size_t>(options_.pool.layout.num_layers + part.notes), order_.first_token);
    part.ready = part.got;
  }
  for (Part& part : parts_) {
    if (over_) return;
    options_.links->Open(order_.sources[static_cast<size_t>(part.slice.source_rank)], order_.engine_id,
                         weak_from_this(), [this, &part](Result<std::shared_ptr<Link>> link) {
                           if (over_) return;
                           if (!link) return Finish(std::unexpected(link.error()));
                           Join(part, std::move(*link));
                         });
  }
}

void Share::Join(Part& part, std::shared_ptr<Link> link) {
  const Identity& theirs = link->peer().identity;
  if (theirs.tp_rank != part.slice.source_rank ||
      theirs.tp_size != static_cast<int32_t>(order_.sources.size())) {
    return Finish(Fail(Code::kUnavailable, "at {} is tp rank {} of {}; {} of {} was expected", link->name(),
                       theirs.tp_rank, theirs.tp_size, part.slice.source_rank, order_.sources.size()));
  }
  part.place.Take(std::move(link), &part);
  const Want want = {.stream = part.place.stream(),
                     .kind = WantKind::kData,
                     .request_id = order_.request_id,
                     .generation = order_.generation,
                     .first_token = order_.first_token,
                     .end_token = order_.end_token,
                     .heads = part.slice.source_heads,
                     .as_data = !part.place->shares_memory(),
                     .notes = part.notes};
  part.place.Send(kWant, want.Encode());
}

void Share::Abort() {
  over_ = true;
  Leave();
}

void Share::Leave() {
  for (Part& part : parts_) {
    if (part.place) part.place.Send(kStop, OnlyStream(part.place.stream()));
    part.place.Reset();
  }
}

void Share::Finish(Status status) {
  if (over_) return;
  const bool near = within_host();
  over_ = true;
  Leave();
  ended_({.status = std::move(status), .bytes = bytes_, .within_host = near});
}

int64_t Share::num_whole() const {
  int64_t whole = order_.end_token;
  for (const Part& part : parts_) whole = std::min(whole, *std::ranges::min_element(part.got));
  return whole;
}

bool Share::within_host() const {
  return !parts_.empty() && std::ranges::all_of(parts_, [](const Part& part) {
    return part.place && part.place->shares_memory();
  });
}

void Share::CheckDone() {
  if (!over_ && num_whole() == order_.end_token) Finish({});
}

Landing Share::LandingOf(const Part& part, int32_t layer, int64_t first_token, int64_t end_token) const {
  return {options_.pool, order_.blocks, {layer, part.slice.target_heads, first_token, end_token}};
}

void Share::Part::Lost(const Error& why) {
  share->Finish(std::unexpected(why));
}

void Share::Part::Heard(FrameKind kind, fabric::WireReader& in) {
  Status fine;
  if (kind == kTable) {
    fine = HearTable(in);
  } else if (kind == kReady) {
    fine = HearReady(in);
  } else if (kind == kRefused) {
    fine = Outcome::Decode(in).status;
    if (fine) fine = std::unexpected(BrokenMessage(*place));
  } else {
    fine = std::unexpected(BrokenMessage(*place));
  }
  if (!fine) share->Finish(fine);
}

Status Share::Part::HearTable(fabric::WireReader& in) {
  const auto first = in.Get<uint32_t>();
  const std::vector<int32_t> blocks = GetTable(in);
  const Pool pool = place->pool();
  const auto begins = static_cast<size_t>(share->order_.first_token / pool.layout.block_size);
  if (table.empty()) table.resize(begins, -1);
  const bool sound = in.ok() && place->shares_memory() && first == table.size() &&
                     std::ranges::all_of(blocks, [&](int32_t b) { return b >= 0 && b < pool.num_blocks; });
  if (!sound) return std::unexpected(BrokenMessage(*place));
  table.insert(table.end(), blocks.begin(), blocks.end());
  return {};
}

Status Share::Part::HearReady(fabric::WireReader& in) {
  const Pool pool = place->pool();
  while (true) {
    const auto at = in.Get<int32_t>();
    if (!in.ok()) return {};  // the end
    const auto tokens = in.Get<int64_t>();
    const bool sound = in.ok() && place->shares_memory() && at >= 0 && at < std::ssize(got) &&
                       tokens <= share->order_.end_token && tokens >= ready[static_cast<size_t>(at)] &&
                       kv::BlocksFor(tokens, pool.layout.block_size) <= static_cast<int64_t>(table.size());
    if (!sound) return std::unexpected(BrokenMessage(*place));
    ready[static_cast<size_t>(at)] = tokens;
  }
}

Runs Share::Part::Land(const DataHead& head, int64_t bytes) {
  const Share& s = *share;
  const bool sound =
      head.layer >= 0 && head.layer < std::ssize(got) &&
      head.first_token == got[static_cast<size_t>(head.layer)] && head.end_token > head.first_token &&
      head.end_token <= s.order_.end_token &&
      (head.end_token % kPanelTokens == 0 || head.end_token == s.order_.end_token) &&
      Piece{head.layer, slice.target_heads, head.first_token, head.end_token}.Bytes(s.options_.pool) == bytes;
  if (!sound) {
    share->Finish(std::unexpected(BrokenMessage(*place)));
    return {};
  }
  landing = s.LandingOf(*this, head.layer, head.first_token, head.end_token);
  return landing->runs();
}

void Share::Part::Landed(const DataHead& head) {
  landing->Finish();
  landing.reset();
  got[static_cast<size_t>(head.layer)] = head.end_token;
  share->bytes_ +=
      Piece{head.layer, slice.target_heads, head.first_token, head.end_token}.Bytes(share->options_.pool);
  share->CheckDone();
}

std::optional<Piece> Share::Part::NextCopy() const {
  const Pool& pool = share->options_.pool;
  const auto num_layers = static_cast<int32_t>(got.size());
  for (int32_t i = 0; i < num_layers; ++i) {
    const int32_t at = (layer + i) % num_layers;
    const int64_t begin = got[static_cast<size_t>(at)], end = ready[static_cast<size_t>(at)];
    if (begin >= end) continue;
    Piece piece = {at, slice.source_heads, begin, 0};
    const int64_t panels = std::max<int64_t>(kCopyPiece / piece.PanelBytes(pool), 1);
    piece.end_token = std::min(end, (begin / kPanelTokens + panels) * kPanelTokens);
    return piece;
  }
  return std::nullopt;
}

void Share::CopyPiece(Part& part, const Piece& piece) {
  Runs from;
  AppendRuns(part.place->pool(), part.table, piece, from);
  Landing to = LandingOf(part, piece.layer, piece.first_token, piece.end_token);
  // A ragged first panel goes into its own run there, as a ragged last one does; the order is the same.
  CopyRuns(from, to.runs());
  to.Finish();
  part.layer = piece.layer;
  part.got[static_cast<size_t>(piece.layer)] = piece.end_token;
  bytes_ += piece.Bytes(options_.pool);
}

bool Share::CopySome() {
  const int64_t until = bytes_ + kCopyTurn;
  bool any = true;
  while (any && bytes_ < until) {
    any = false;
    for (Part& part : parts_) {
      if (!part.place || !part.place->shares_memory()) continue;
      const std::optional<Piece> piece = part.NextCopy();
      if (!piece) continue;
      CopyPiece(part, *piece);
      any = true;
    }
  }
  if (bytes_ > until - kCopyTurn) CheckDone();
  return any && !over_;
}

}  // namespace cadre::handoff
