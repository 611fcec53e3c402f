#include "handoff/lead.h"

#include <algorithm>

namespace cadre::handoff {

Lead::Lead(Options options, FetchOrder order)
    : options_(std::move(options)),
      order_(std::move(order)),
      snapshot_(order_.first_token),
      confirmed_(order_.first_token) {}

void Lead::Start() {
  if (order_.first_token < 0 || order_.num_tokens < order_.first_token || order_.num_tokens > kMaxTokens) {
    return End(Fail(Code::kInvalidArgument, "tokens [{}, {}) cannot be fetched", order_.first_token,
                    order_.num_tokens));
  }
  options_.share.links->Open(
      {order_.source.host, order_.source.port}, order_.source.engine_id, weak_from_this(),
      [this](Result<std::shared_ptr<Link>> link) {
        if (ended_) return;
        unreachable_ = !link;
        if (!link) return End(std::unexpected(link.error()));
        if ((*link)->peer().identity.tp_rank != 0) {
          unreachable_ = true;
          return End(Fail(Code::kInvalidArgument,
                          "at {} is tp rank {} of its instance; a fetch needs the address of tp rank 0",
                          (*link)->name(), (*link)->peer().identity.tp_rank));
        }
        lease_.Take(std::move(*link), this);
        contacted_ = true;
        const Want want = {.stream = lease_.stream(),
                           .kind = WantKind::kLease,
                           .may_wait = order_.push,
                           .request_id = order_.source.request_id,
                           .generation = options_.generation,
                           .adapter = order_.adapter,
                           .first_token = order_.first_token,
                           .end_token = order_.num_tokens};
        lease_.Send(kWant, want.Encode());
      });
}

void Lead::Heard(FrameKind kind, fabric::WireReader& in) {
  if (ended_) return;
  if (kind == kGranted && !own_) return Granted(in);
  if (kind == kValid && asked_) {
    lease_.Reset();
    return End({});
  }
  Status why = Fail(Code::kDataLoss, "{} sent a broken message", lease_->name());
  if (kind == kRefused) {
    if (Outcome outcome = Outcome::Decode(in); !outcome.status) why = outcome.status;
    // What was read after the last answer may be somebody else's.
    lease_.Reset();
  }
  End(std::move(why));
}

void Lead::Granted(fabric::WireReader& in) {
  in.Get<int64_t>();  // tokens of the prompt: for what waits for it, not for us
  std::vector<PeerAddress> sources = GetAddresses(in);
  const auto tp_size = static_cast<size_t>(lease_->peer().identity.tp_size);
  if (tp_size == 1) sources.resize(1);
  if (!in.ok() || sources.size() != tp_size) {
    return End(Fail(Code::kUnavailable,
                    "{} has {} tp ranks, but told the addresses of {}; it is not ready yet", lease_->name(),
                    tp_size, sources.size()));
  }
  sources[0] = {order_.source.host, order_.source.port};  // as it was reached
  post_seconds_ = SecondsSince(start_);
  OrderShares(sources);
}

void Lead::OrderShares(const std::vector<PeerAddress>& sources) {
  const ShareOrder order = {.engine_id = lease_->peer().engine_id,
                            .sources = sources,
                            .request_id = order_.source.request_id,
                            .generation = options_.generation,
                            .first_token = order_.first_token,
                            .end_token = order_.num_tokens,
                            .blocks = order_.blocks};
  const auto tp_size = static_cast<size_t>(options_.share.identity.tp_size);
  if (tp_size > 1 && options_.peers.size() != tp_size) {
    return End(Fail(Code::kUnavailable, "this instance has {} tp ranks, but knows the addresses of {}",
                    tp_size, options_.peers.size()));
  }
  num_missing_ = static_cast<int>(tp_size);
  own_ = std::make_shared<Share>(options_.share, order, [this](const Outcome& outcome) {
    bytes_ += outcome.bytes;
    ShareEnded(outcome);
  });
  for (size_t rank = 1; rank < tp_size; ++rank) {
    Remote& remote = remotes_.emplace_back();
    remote.lead = this;
  }
  auto remote = remotes_.begin();
  for (size_t rank = 1; rank < tp_size; ++rank, ++remote) {
    options_.share.links->Open(options_.peers[rank], options_.engine_id, weak_from_this(),
                               [this, order, at = &*remote](Result<std::shared_ptr<Link>> link) {
                                 if (!link) return at->Lost(link.error());
                                 if (ended_) return void(at->over = true);
                                 at->place.Take(std::move(*link), at);
                                 at->place.Send(kOrder, order.Encode(at->place.stream()));
                               });
  }
  if (!ended_) own_->Start();
}

void Lead::Remote::Heard(FrameKind kind, fabric::WireReader& in) {
  if (over) return;
  over = true;
  place.Reset();
  Outcome outcome = Outcome::Decode(in);
  if (kind != kOrdered) outcome.status = Fail(Code::kDataLoss, "another tp rank sent a broken message");
  lead->bytes_ += outcome.bytes;
  lead->ShareEnded(outcome);
}

void Lead::Remote::Lost(const Error& why) {
  if (over) return;
  over = true;
  lead->ShareEnded({.status = Fail(why.code, "another tp rank of this instance: {}", why.message)});
}

void Lead::ShareEnded(const Outcome& outcome) {
  all_near_ &= outcome.within_host || order_.first_token >= order_.num_tokens;
  if (!outcome.status) {
    if (!ended_) End(outcome.status);
    return;
  }
  --num_missing_;
  CheckAll();
}

void Lead::CheckAll() {
  if (ended_ || asked_ || num_missing_ > 0) return;
  asked_ = true;
  lease_.Send(kDone, OnlyStream(lease_.stream()));
}

void Lead::Asked() {
  if (own_ && remotes_.empty()) snapshot_ = own_->num_whole();
}

void Lead::Answered() {
  confirmed_ = std::max(confirmed_, snapshot_);
}

void Lead::Lost(const Error& why) {
  End(std::unexpected(why));
}

void Lead::End(Status status) {
  if (ended_) return;
  ended_ = true;
  if (own_) {
    if (!own_->over()) bytes_ += own_->bytes();
    own_->Abort();
  }
  for (Remote& remote : remotes_) {
    if (!remote.place) remote.over = true;  // was never asked
    if (!remote.over) remote.place.Send(kStop, OnlyStream(remote.place.stream()));
  }
  if (lease_) lease_.Send(kStop, OnlyStream(lease_.stream()));
  lease_.Reset();
  source_waits_ = !contacted_ && !unreachable_;
  give_up_ = Now() + options_.silence_timeout;
  result_ = {.id = order_.id,
             .status = std::move(status),
             .bytes = bytes_,
             .seconds = SecondsSince(start_),
             .post_seconds = post_seconds_,
             .num_descriptors = NumDescriptors(),
             .within_host = all_near_ && own_ != nullptr};
  result_.valid_tokens = result_.status ? order_.num_tokens : confirmed_;
}

int64_t Lead::NumDescriptors() const {
  const kv::Layout& layout = options_.share.pool.layout;
  const int64_t blocks =
      kv::BlocksFor(order_.num_tokens, layout.block_size) - order_.first_token / layout.block_size;
  return std::max<int64_t>(blocks, 0) * layout.num_layers;
}

std::string Lead::WhereItStands() const {
  if (!lease_) return Format("{}:{} could not be reached", order_.source.host, order_.source.port);
  if (!own_) return "the source has not heard of the request";
  if (asked_) return "the source does not say whether its lease still lives";
  return Format("{} of {} tokens are here", own_->num_whole(), order_.num_tokens);
}

bool Lead::Over(TimePoint now) {
  if (!ended_ && now >= deadline()) {
    End(Fail(Code::kDeadlineExceeded, "the keys and values of request '{}' did not come within {:.3g} s: {}",
             Excerpt(order_.source.request_id), SecondsSince(start_), WhereItStands()));
  }
  if (!ended_) return false;
  const bool waiting = std::ranges::any_of(remotes_, [](const Remote& remote) { return !remote.over; });
  if (waiting && now < give_up_) return false;
  if (!given_) options_.fetched(std::move(result_));
  given_ = true;
  return true;
}

TimePoint Lead::next_time() const {
  if (!ended_) return deadline();
  const bool waiting = std::ranges::any_of(remotes_, [](const Remote& remote) { return !remote.over; });
  return waiting ? give_up_ : TimePoint::min();
}

}  // namespace cadre::handoff
