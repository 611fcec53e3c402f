#include "handoff/source.h"

#include <algorithm>

#include "base/log.h"

namespace cadre::handoff {
namespace {

constexpr size_t kMaxWaiting = 4096, kMaxServings = 4096, kMaxPast = 256;
constexpr auto kPeerTime = std::chrono::seconds(1);
// A target that comes within this time of a drop is told of it, even if it would wait for the request.
constexpr auto kDropMemory = std::chrono::seconds(2);
// A target that was asked at the same time may say that it wants nothing before the request is known here.
constexpr size_t kMaxRefused = 1024;
constexpr auto kRefusedMemory = std::chrono::seconds(60);

const char* WhyText(LeaseEnd why) {
  switch (why) {
    case LeaseEnd::kFetched:
      return "it has been fetched already";
    case LeaseEnd::kExpired:
      return "its lease has expired";
    case LeaseEnd::kTargetLost:
      return "the target that began to fetch it was lost";
    case LeaseEnd::kRejected:
      return "a target has said that it does not want it";
    case LeaseEnd::kDropped:
      return "it was dropped";
  }
  return "?";
}

std::string AdapterText(const std::string& adapter) {
  return adapter.empty() ? "the model alone" : Format("LoRA adapter {}", Excerpt(adapter, 300));
}

}  // namespace

// Tells the other tp ranks that a request is over, and then, or after a while, the engine.
class Source::PeerEnd {
 public:
  PeerEnd(EndedLease ended, std::function<void(EndedLease)> then)
      : ended_(std::move(ended)), then_(std::move(then)), until_(Now() + kPeerTime) {}

  static void Start(const std::shared_ptr<PeerEnd>& self, const Source& source) {
    for (size_t rank = 0; rank < source.peers_.size(); ++rank) {
      if (rank == static_cast<size_t>(source.options_.tp_rank)) continue;
      Peer* peer = &self->peers_.emplace_back();
      ++self->num_missing_;
      peer->end = self.get();
      source.options_.links->Open(source.peers_[rank], "", self, [self_ = self.get(), peer](auto link) {
        if (!link) return peer->Finish();
        peer->place.Take(std::move(*link), peer);
        fabric::WireWriter out;
        out.Put(peer->place.stream()).PutText(self_->ended_.request_id);
        peer->place.Send(kEnd, out.text());
      });
    }
  }
  bool Over(TimePoint now) {
    if (num_missing_ > 0 && now < until_) return false;
    then_(ended_);
    return true;
  }
  TimePoint until() const { return num_missing_ > 0 ? until_ : TimePoint::min(); }

 private:
  struct Peer final : StreamUser {
    PeerEnd* end = nullptr;
    bool finished = false;
    StreamPlace place;
    void Finish() {
      if (!finished) --end->num_missing_;
      finished = true;
    }
    void Heard(FrameKind, fabric::WireReader&) override { Finish(); }
    void Lost(const Error&) override { Finish(); }
  };
  EndedLease ended_;
  std::function<void(EndedLease)> then_;
  TimePoint until_;
  std::list<Peer> peers_;
  int num_missing_ = 0;
};

Source::Source(Options options) : options_(std::move(options)) {}
Source::~Source() = default;

void Source::Add(std::shared_ptr<Progress> progress, int64_t num_tokens, int64_t generation,
                 std::string adapter) {
  const std::string id = progress->request_id;
  Held& held = held_[id];
  held.progress = std::move(progress);
  held.num_tokens = num_tokens;
  held.generation = generation;
  held.adapter = std::move(adapter);
  for (auto at = waiting_.begin(); at != waiting_.end();) {
    const auto next = std::next(at);
    if (at->want.request_id == id) {
      Serving serving = std::move(*at);
      waiting_.erase(at);
      Serve(held, std::move(serving));
    }
    at = next;
  }
}

void Source::Open(std::shared_ptr<Progress> progress, int64_t num_tokens, int64_t generation,
                  std::string adapter) {
  const std::string id = progress->request_id;
  Add(std::move(progress), num_tokens, generation, std::move(adapter));
  const auto refused = std::ranges::find(refused_, id, [](const auto& one) { return one.first; });
  if (refused == refused_.end()) return;
  if (Now() - refused->second < kRefusedMemory) Unwanted(id, LeaseEnd::kRejected);
  refused_.erase(refused);
}

void Source::Blocks(const std::shared_ptr<Progress>& progress, std::vector<int32_t> blocks) {
  auto at = held_.find(progress->request_id);
  if (at == held_.end() && options_.tp_rank > 0 && !progress->closed.load()) {
    Add(progress, 0, -1, {});
    at = held_.find(progress->request_id);
  }
  if (at != held_.end() && at->second.progress == progress) at->second.blocks = std::move(blocks);
}

void Source::Lease(const std::string& request_id, TimePoint until) {
  const auto at = held_.find(request_id);
  if (at == held_.end()) return;
  Held& held = at->second;
  ++num_leases_;
  held.leased = true;
  held.until = until;
  held.length = std::max(until - Now(), Duration(0));
  if (held.over) return End(request_id, *held.over, {Code::kNotFound, WhyText(*held.over), {}});
  held.servings.remove_if([&](const Serving& serving) {
    const Status complete = CheckComplete(held, serving.want);
    if (!complete) Refuse(serving.caller, serving.want.stream, complete.error());
    return !complete;
  });
}

void Source::Drop(const std::string& request_id, const Error& why) {
  if (held_.contains(request_id)) End(request_id, LeaseEnd::kDropped, why);
}

// What will be written is written: a target cannot wait for more.
Status Source::CheckComplete(const Held& held, const Want& want) const {
  if (!held.leased) return {};
  int64_t num_tokens = INT64_MAX;
  for (const auto& written : held.progress->written) num_tokens = std::min(num_tokens, written.load());
  const auto room = static_cast<int64_t>(held.blocks.size()) * options_.pool.layout.block_size;
  num_tokens = std::min(num_tokens, room);
  if (want.end_token <= num_tokens) return {};
  return Fail(Code::kInvalidArgument, "{} tokens of request '{}' are wanted; the source has {}",
              want.end_token, Excerpt(want.request_id), num_tokens);
}

void Source::Refuse(Caller* caller, uint32_t stream, const Error& why) {
  caller->stream.Void(stream);
  caller->stream.Send(kRefused, Outcome{std::unexpected(why)}.Encode(stream));
}

Error Source::WhyUnknown(const std::string& request_id) const {
  for (auto past = past_.rbegin(); past != past_.rend(); ++past) {
    if (past->request_id != request_id) continue;
    return {Code::kNotFound,
            Format("the source has no request '{}' any more: {}, {:.3g} s ago", Excerpt(request_id),
                   past->text, SecondsSince(past->when)),
            {}};
  }
  return {Code::kNotFound,
          Format("the source knows no request '{}': it was never prefilled here, or long ago",
                 Excerpt(request_id)),
          {}};
}

void Source::HearWant(Caller* caller, const std::string& body) {
  auto want = Want::Decode(body);
  if (!want) return caller->stream.Break(want.error().message);
  const uint32_t stream = want->stream;
  const HeadRange heads = want->heads;
  const bool data = want->kind == WantKind::kData;
  const kv::Layout& layout = options_.pool.layout;
  if (data && (heads.begin < 0 || heads.size() <= 0 || heads.end > layout.num_kv_heads ||
               (!want->as_data && !caller->near) || (want->notes && layout.note_bytes == 0))) {
    return caller->stream.Break("it wants what is not here");
  }
  const auto held = held_.find(want->request_id);
  Serving serving = {.caller = caller, .want = std::move(*want)};
  if (held != held_.end()) return Serve(held->second, std::move(serving));
  const bool dropped = std::ranges::any_of(past_, [&](const PastEnd& past) {
    return past.request_id == serving.want.request_id && past.dropped && Now() - past.when < kDropMemory;
  });
  const bool wait = data ? options_.tp_rank > 0 : serving.want.may_wait && !dropped;
  if (!wait) return Refuse(caller, stream, WhyUnknown(serving.want.request_id));
  if (waiting_.size() >= kMaxWaiting) {
    return Refuse(caller, stream, {Code::kResourceExhausted, "too many targets wait for requests here", {}});
  }
  waiting_.push_back(std::move(serving));
}

void Source::Serve(Held& held, Serving serving) {
  Caller* caller = serving.caller;
  const Want& want = serving.want;
  const auto refuse = [&](Code code, std::string text) {
    Refuse(caller, want.stream, {code, std::move(text), {}});
  };
  if (held.generation >= 0 && want.generation != held.generation) {
    return refuse(Code::kUnsupported,
                  Format("its keys and values are of weights after {} updates, the target's weights after {}",
                         held.generation, want.generation));
  }
  // Streams of data follow a lease, which has asked this.
  if (want.kind == WantKind::kLease && want.adapter != held.adapter) {
    return refuse(Code::kUnsupported, Format("its keys and values are of {}, the target wants those of {}",
                                             AdapterText(held.adapter), AdapterText(want.adapter)));
  }
  if (const Status complete = CheckComplete(held, want); !complete) {
    return Refuse(caller, want.stream, complete.error());
  }
  if (held.over == LeaseEnd::kFetched) return refuse(Code::kNotFound, WhyText(LeaseEnd::kFetched));
  if (held.servings.size() >= kMaxServings) {
    return refuse(Code::kResourceExhausted, "too many targets fetch this request");
  }
  held.over.reset();
  if (want.kind == WantKind::kLease) {
    fabric::WireWriter out;
    out.Put(want.stream).Put(held.num_tokens);
    PutAddresses(out, peers_);
    caller->stream.Send(kGranted, out.text());
  } else {
    serving.sent.assign(static_cast<size_t>(options_.pool.layout.num_layers + want.notes), want.first_token);
    serving.blocks_told = static_cast<size_t>(want.first_token / options_.pool.layout.block_size);
    held.progress->watched.store(true);
  }
  held.servings.push_back(std::move(serving));
  repace_ = true;
}

std::pair<Source::Held*, std::list<Source::Serving>::iterator> Source::Find(Caller* caller, uint32_t stream) {
  for (auto& [id, held] : held_) {
    for (auto at = held.servings.begin(); at != held.servings.end(); ++at) {
      if (at->caller == caller && at->want.stream == stream) return {&held, at};
    }
  }
  return {nullptr, {}};
}

void Source::HearDone(Caller* caller, uint32_t stream) {
  const auto [held, at] = Find(caller, stream);
  // One that is over has been refused already.
  if (held == nullptr || at->want.kind != WantKind::kLease) return;
  const std::string id = at->want.request_id;
  held->servings.erase(at);
  caller->stream.Send(kValid, OnlyStream(stream));
  held->over = LeaseEnd::kFetched;
  if (held->leased) End(id, LeaseEnd::kFetched, {Code::kNotFound, WhyText(LeaseEnd::kFetched), {}});
}

void Source::Unwanted(const std::string& request_id, LeaseEnd why) {
  const auto at = held_.find(request_id);
  if (at == held_.end()) return;
  Held& held = at->second;
  const bool wanted = std::ranges::any_of(
      held.servings, [](const Serving& serving) { return serving.want.kind == WantKind::kLease; });
  if (wanted || held.over) return;
  if (held.leased) {
    End(request_id, why, {Code::kUnavailable, WhyText(why), {}});
  } else {
    held.over = why;
  }
}

void Source::HearStop(Caller* caller, uint32_t stream) {
  std::erase_if(waiting_, [&](const Serving& s) { return s.caller == caller && s.want.stream == stream; });
  caller->stream.Void(stream);
  const auto [held, at] = Find(caller, stream);
  if (held == nullptr) return;
  const Want want = std::move(at->want);
  held->servings.erase(at);
  repace_ = true;
  if (want.kind == WantKind::kLease) Unwanted(want.request_id, LeaseEnd::kRejected);
}

void Source::HearTell(Caller* caller, fabric::WireReader& in, uint32_t stream) {
  const std::string request_id = in.GetText();
  const bool reject = in.Get<uint8_t>() != 0;
  if (!in.ok()) return caller->stream.Break("it sent a broken message");
  Outcome outcome;
  const auto held = held_.find(request_id);
  if (held == held_.end() && !reject) outcome.status = std::unexpected(WhyUnknown(request_id));
  if (held != held_.end() && !reject && held->second.leased) {
    held->second.until = std::max(held->second.until, Now() + held->second.length);
  }
  if (held != held_.end() && reject) Unwanted(request_id, LeaseEnd::kRejected);
  if (held == held_.end() && reject) {
    refused_.emplace_back(request_id, Now());
    if (refused_.size() > kMaxRefused) refused_.pop_front();
  }
  caller->stream.Send(kTold, outcome.Encode(stream));
}

void Source::HearPing(Caller* caller) {
  for (auto& [id, held] : held_) {
    const bool mine = std::ranges::any_of(held.servings, [&](const Serving& serving) {
      return serving.caller == caller && serving.want.kind == WantKind::kLease;
    });
    if (mine && held.leased) held.until = std::max(held.until, Now() + held.length);
  }
  caller->stream.Send(kPong, {});
}

void Source::HearEnd(Caller* caller, fabric::WireReader& in, uint32_t stream) {
  const std::string request_id = in.GetText();
  if (!in.ok() || !caller->trusted) return caller->stream.Break("it gives orders that it may not give");
  Close(request_id, {Code::kNotFound, "the request is over", {}});
  caller->stream.Send(kEnded, OnlyStream(stream));
}

void Source::Forget(Caller* caller) {
  repace_ = true;
  std::erase_if(waiting_, [&](const Serving& serving) { return serving.caller == caller; });
  std::vector<std::string> left;
  for (auto& [id, held] : held_) {
    std::erase_if(held.servings, [&, &id_ = id](const Serving& serving) {
      if (serving.caller == caller && serving.want.kind == WantKind::kLease) left.push_back(id_);
      return serving.caller == caller;
    });
  }
  for (const std::string& id : left) Unwanted(id, LeaseEnd::kTargetLost);
}

// Nothing of the request is read any more here.
void Source::Close(const std::string& request_id, const Error& error) {
  const auto at = held_.find(request_id);
  if (at == held_.end()) return;
  for (const Serving& serving : at->second.servings) Refuse(serving.caller, serving.want.stream, error);
  at->second.progress->closed.store(true);
  held_.erase(at);
  repace_ = true;
}

void Source::End(const std::string& request_id, LeaseEnd why, const Error& error) {
  const std::string id = request_id;  // the caller's may be in what Close destroys
  num_expired_ += why == LeaseEnd::kExpired;
  Close(id, error);
  past_.push_back(
      {id, why == LeaseEnd::kDropped ? error.message : WhyText(why), Now(), why == LeaseEnd::kDropped});
  if (past_.size() > kMaxPast) past_.pop_front();
  LogDebug("hand-off: request '{}' is over: {}", id, error.message);
  auto end = std::make_shared<PeerEnd>(EndedLease{id, why}, options_.ended);
  PeerEnd::Start(end, *this);
  if (!end->Over(Now())) ending_.push_back(std::move(end));
}

void Source::HandleTimes(TimePoint now) {
  std::erase_if(ending_, [&](const std::shared_ptr<PeerEnd>& end) { return end->Over(now); });
  std::vector<std::string> expired;
  for (const auto& [id, held] : held_) {
    if (held.leased && now >= held.until) expired.push_back(id);
  }
  for (const std::string& id : expired) {
    LogWarning("hand-off: the lease of request '{}' has expired before anybody had its keys and values", id);
    End(id, LeaseEnd::kExpired, {Code::kDeadlineExceeded, "its lease has expired", {}});
  }
}

TimePoint Source::next_time() const {
  TimePoint next = TimePoint::max();
  for (const auto& end : ending_) next = std::min(next, end->until());
  for (const auto& [id, held] : held_) {
    if (held.leased) next = std::min(next, held.until);
  }
  return next;
}

}  // namespace cadre::handoff
