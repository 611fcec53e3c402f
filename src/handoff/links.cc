#include "handoff/links.h"

#include "base/log.h"

namespace cadre::handoff {
namespace {

constexpr auto kPingPeriod = std::chrono::milliseconds(250);

}  // namespace

Link::Link(std::string name, FrameStream stream, Introduction peer, sys::Region memory)
    : name_(std::move(name)),
      stream_(std::move(stream)),
      peer_(std::move(peer)),
      memory_(std::move(memory)) {}

uint32_t Link::Join(StreamUser* user) {
  if (users_.empty()) {
    next_ping_ = Now() + kPingPeriod;
    unanswered_since_ = TimePoint::max();
  }
  users_[next_stream_] = user;
  return next_stream_++;
}

void Link::Leave(uint32_t stream) {
  users_.erase(stream);
  stream_.Abandon(stream);
}

void Link::Heard(FrameKind kind, std::string body) {
  unanswered_since_ = TimePoint::max();
  if (kind == kPong) {
    // A user may leave, or make others leave, when it hears.
    std::vector<uint32_t> streams;
    for (const auto& [stream, user] : users_) streams.push_back(stream);
    for (const uint32_t stream : streams) {
      if (const auto user = users_.find(stream); user != users_.end()) user->second->Answered();
    }
    return;
  }
  fabric::WireReader in(std::move(body));
  const auto stream = in.Get<uint32_t>();
  if (!in.ok()) return stream_.Break("it sent a broken message");
  // For one that has left meanwhile: nobody's.
  if (const auto user = users_.find(stream); user != users_.end()) user->second->Heard(kind, in);
}

Runs Link::Land(const DataHead& head, int64_t bytes) {
  unanswered_since_ = TimePoint::max();
  const auto user = users_.find(head.stream);
  return user == users_.end() ? Runs() : user->second->Land(head, bytes);
}

void Link::Landed(const DataHead& head) {
  unanswered_since_ = TimePoint::max();
  if (const auto user = users_.find(head.stream); user != users_.end()) user->second->Landed(head);
}

void Link::Tend(TimePoint now, Duration silence_timeout) {
  if (idle() || stream_.broken()) return;
  if (unanswered_since_ != TimePoint::max() && now - unanswered_since_ > silence_timeout) {
    stream_.Break(Format("it has said nothing for {:.3g} s: stopped, or cut off", Seconds(silence_timeout)));
    return;
  }
  if (now < next_ping_) return;
  next_ping_ = now + kPingPeriod;
  if (unanswered_since_ != TimePoint::max()) return;
  unanswered_since_ = now;
  for (const auto& [stream, user] : users_) user->Asked();
  stream_.Send(kPing, {});
}

void Link::Lose() {
  const Error why = {Code::kUnavailable, Format("lost {}: {}", name_, stream_.reason()), {}};
  while (!users_.empty()) {
    const uint32_t stream = users_.begin()->first;
    users_.begin()->second->Lost(why);
    users_.erase(stream);
  }
}

Links::Links(Introduction self, bool share_memory, Duration connect_timeout, std::function<void()> ready)
    : self_(std::move(self)),
      share_memory_(share_memory),
      connect_timeout_(connect_timeout),
      ready_(std::move(ready)) {}

Links::~Links() {
  for (auto& [key, dialling] : dialling_) dialling.thread.join();
}

void Links::Give(const std::shared_ptr<Link>& link, const Waiting& to) {
  if (to.owner.expired()) return;
  if (!to.engine_id.empty() && to.engine_id != link->peer().engine_id) {
    return to.then(Fail(Code::kUnavailable,
                        "at {} is engine '{}', not '{}': has it been started anew, or is the side channel's "
                        "address another server's?",
                        link->name(), Excerpt(link->peer().engine_id), Excerpt(to.engine_id)));
  }
  to.then(link);
}

void Links::Open(const PeerAddress& address, const std::string& engine_id, std::weak_ptr<void> owner,
                 Then then) {
  const std::string key = Format("{}:{}", address.host, address.port);
  Waiting waiting = {engine_id, std::move(owner), std::move(then)};
  if (const auto at = links_.find(key); at != links_.end() && !at->second->stream().broken()) {
    return Give(at->second, waiting);
  }
  Dialling& dialling = dialling_[key];
  dialling.waiting.push_back(std::move(waiting));
  if (dialling.thread.joinable()) return;
  dialling.thread = std::thread([this, key, address, self = self_] {
    auto link = Dial(address, self, share_memory_, Now() + connect_timeout_);
    {
      const std::lock_guard lock(mutex_);
      dialled_.push_back({key, std::move(link)});
    }
    ready_();
  });
}

void Links::TakeDialled() {
  std::vector<Dialled> dialled;
  {
    const std::lock_guard lock(mutex_);
    dialled.swap(dialled_);
  }
  for (Dialled& done : dialled) {
    auto node = dialling_.extract(done.key);
    node.mapped().thread.join();
    if (done.link) {
      // A broken one may still stand there, with users who have not heard of it.
      if (const auto old = links_.find(done.key); old != links_.end()) old->second->Lose();
      links_[done.key] = *done.link;
    }
    for (const Waiting& waiting : node.mapped().waiting) {
      if (done.link) {
        Give(*done.link, waiting);
      } else if (!waiting.owner.expired()) {
        waiting.then(std::unexpected(done.link.error()));
      }
    }
  }
}

void Links::DropBroken() {
  for (auto at = links_.begin(); at != links_.end();) {
    if (!at->second->stream().broken()) {
      ++at;
      continue;
    }
    const std::shared_ptr<Link> link = at->second;
    at = links_.erase(at);
    LogDebug("hand-off: lost {}: {}", link->name(), link->stream().reason());
    link->Lose();
  }
}

}  // namespace cadre::handoff
