// The agent's thread.
#include <poll.h>
#include <sys/eventfd.h>

#include <algorithm>

#include "base/log.h"
#include "handoff/socket_agent.h"
#include "sys/sockets.h"

namespace cadre::handoff {
namespace {

constexpr size_t kMaxCallers = 1024, kMaxStrangers = 64;
constexpr int kPiecesPerTurn = 4;

}  // namespace

class SocketAgent::CallerSink final : public FrameSink {
 public:
  CallerSink(SocketAgent& agent, Caller& caller) : agent_(agent), caller_(caller) {}
  void Heard(FrameKind kind, std::string body) override { agent_.Heard(caller_, kind, std::move(body)); }
  Runs Land(const DataHead&, int64_t) override {
    caller_.stream.Break("it sends what nobody asked for");
    return {};
  }

 private:
  SocketAgent& agent_;
  Caller& caller_;
};

void SocketAgent::TakePosted() {
  std::vector<std::function<void()>> calls;
  {
    const std::lock_guard lock(mutex_);
    calls.swap(posted_);
  }
  for (const auto& call : calls) call();
}

void SocketAgent::NoteStranger(const Caller& caller, const std::string& why) {
  const bool first = strangers_.size() < kMaxStrangers && strangers_.insert(caller.host).second;
  LogAt(first ? LogLevel::kWarning : LogLevel::kDebug,
        "hand-off: turned away a connection from {} to port {}: {}", caller.host, port_, why);
}

void SocketAgent::Turn(Caller& caller, const Error& why) {
  NoteStranger(caller, why.message);
  caller.stream.Send(kSorry, Outcome{.status = std::unexpected(why)}.Encode(0));
  caller.stream.Break("turned away");
}

void SocketAgent::Greet(Caller& caller, const std::string& body) {
  auto peer = Introduction::Decode(body);
  if (!peer) return Turn(caller, peer.error());
  if (const Status fits = CheckCompatible(options_.identity, peer->identity); !fits) {
    return Turn(caller, fits.error());
  }
  if (const Status fits = CheckNotes(options_.identity, peer->identity); !fits) {
    return Turn(caller, fits.error());
  }
  caller.greeted = true;
  caller.trusted = !options_.group_key.empty() && peer->group_key == options_.group_key &&
                   peer->engine_id == options_.engine_id;
  caller.peer = std::move(*peer);
  caller.stream.set_max_body(kMaxBodyBytes);
  Introduction self = Self();
  self.group_key.clear();
  self.unix_address = unix_address_;
  caller.stream.Send(kWelcome, self.Encode(), caller.near ? options_.kv_fd : -1);
}

void SocketAgent::Heard(Caller& caller, FrameKind kind, std::string body) {
  if (!caller.greeted) {
    if (kind == kHello) return Greet(caller, body);
    return caller.stream.Break("it did not introduce itself");
  }
  // What the engine said before this message was sent (its answer may have told the other side to send it)
  // comes first.
  TakePosted();
  if (kind == kPing) return source_.HearPing(&caller);
  if (kind == kWant) return source_.HearWant(&caller, body);
  fabric::WireReader in(std::move(body));
  const auto stream = in.Get<uint32_t>();
  if (!in.ok()) return caller.stream.Break("it sent a broken message");
  switch (kind) {
    case kDone:
      return source_.HearDone(&caller, stream);
    case kStop:
      target_.HearStop(&caller, stream);
      return source_.HearStop(&caller, stream);
    case kTell:
      return source_.HearTell(&caller, in, stream);
    case kEnd:
      return source_.HearEnd(&caller, in, stream);
    case kOrder:
      return target_.HearOrder(&caller, in, stream);
    default:
      return caller.stream.Break("it sent a message of an unknown kind");
  }
}

void SocketAgent::AcceptAll(const sys::Fd& listener, bool near) {
  while (true) {
    auto fd = sys::Accept(listener.get(), Now());
    if (!fd) {
      // Out of descriptors: who waits is still there later.
      if (fd.error().code != Code::kDeadlineExceeded) accept_after_ = Now() + std::chrono::milliseconds(100);
      return;
    }
    auto caller = std::make_unique<Caller>(std::move(*fd), near);
    caller->host = near ? "this host" : sys::PeerHost(caller->stream.fd());
    const bool allowed = !near || sys::PeerUid(caller->stream.fd()) == geteuid();
    if (callers_.size() >= kMaxCallers || !allowed) {
      NoteStranger(*caller, allowed ? "too many connections" : "another user");
      continue;
    }
    callers_.push_back(std::move(caller));
  }
}

bool SocketAgent::Work() {
  bool more = target_.CopySome();
  for (int i = 0; i < kPiecesPerTurn; ++i) {
    if (!source_.Pump()) return more;
  }
  return true;
}

void SocketAgent::HandleTimes() {
  const TimePoint now = Now();
  for (const auto& [key, link] : links_.all()) link->Tend(now, options_.silence_timeout);
  links_.DropBroken();
  std::erase_if(callers_, [&](const std::unique_ptr<Caller>& caller) {
    if (!caller->greeted && now >= caller->greet_until) caller->stream.Break("it said nothing");
    if (!caller->stream.broken()) return false;
    if (!caller->greeted && caller->stream.reason() != "turned away") {
      NoteStranger(*caller, caller->stream.reason());
    }
    source_.Forget(caller.get());
    target_.Forget(caller.get());
    return true;
  });
  source_.HandleTimes(now);
  target_.HandleTimes(now);
  const std::lock_guard lock(mutex_);
  TakeStats();
}

int SocketAgent::PollMs(TimePoint now) const {
  TimePoint next = std::min(source_.next_time(), target_.next_time());
  for (const auto& [key, link] : links_.all()) next = std::min(next, link->next_tending());
  for (const auto& caller : callers_) {
    if (!caller->greeted) next = std::min(next, caller->greet_until);
  }
  if (now < accept_after_) next = std::min(next, accept_after_);
  if (next == TimePoint::max()) return -1;
  if (next <= now) return 0;
  return static_cast<int>(
      std::min<int64_t>(std::chrono::ceil<std::chrono::milliseconds>(next - now).count(), 60'000));
}

void SocketAgent::Run() {
  std::vector<pollfd> polls;
  std::vector<Caller*> callers;
  std::vector<std::shared_ptr<Link>> links;
  while (!stop_.load()) {
    const bool more = Work();
    HandleTimes();
    const TimePoint now = Now();
    const auto accepting = static_cast<short>(now < accept_after_ ? 0 : POLLIN);
    polls = {{wake_.get(), POLLIN, 0}, {listener_.get(), accepting, 0}, {near_listener_.get(), accepting, 0}};
    callers.clear();
    links.clear();
    const auto add = [&](const FrameStream& stream) {
      polls.push_back({stream.fd(), static_cast<short>(POLLIN | (stream.num_unsent() > 0 ? POLLOUT : 0)), 0});
    };
    for (const auto& caller : callers_) {
      callers.push_back(caller.get());
      add(caller->stream);
    }
    for (const auto& [key, link] : links_.all()) {
      links.push_back(link);
      add(link->stream());
    }
    poll(polls.data(), polls.size(), more ? 0 : PollMs(now));
    if (polls[0].revents != 0) {
      eventfd_t rung;
      eventfd_read(wake_.get(), &rung);
    }
    wake_pending_.store(false);  // what is posted from here on rings again; what was before is seen now
    TakePosted();
    links_.TakeDialled();
    if (polls[1].revents != 0) AcceptAll(listener_, false);
    if (polls[2].revents != 0) AcceptAll(near_listener_, true);
    for (size_t i = 0; i < callers.size(); ++i) {
      const short events = polls[3 + i].revents;
      CallerSink sink(*this, *callers[i]);
      if ((events & POLLOUT) != 0) callers[i]->stream.Flush();
      if ((events & ~POLLOUT) != 0) callers[i]->stream.Read(sink);
    }
    for (size_t i = 0; i < links.size(); ++i) {
      const short events = polls[3 + callers.size() + i].revents;
      if ((events & POLLOUT) != 0) links[i]->stream().Flush();
      if ((events & ~POLLOUT) != 0) links[i]->stream().Read(*links[i]);
    }
  }
}

}  // namespace cadre::handoff
