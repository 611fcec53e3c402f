// The opener's side of an introduction, on a thread of its own.
#include <fcntl.h>

#include "base/log.h"
#include "handoff/links.h"
#include "sys/shared_memory.h"
#include "sys/sockets.h"

namespace cadre::handoff {
namespace {

struct Greeting final : FrameSink {
  void Heard(FrameKind heard, std::string text) override {
    if (!kind) kind = heard, body = std::move(text);
  }
  std::optional<FrameKind> kind;
  std::string body;
};

struct Met {
  FrameStream stream;
  Introduction peer;
};

// Says Hello, hears Welcome.
Result<Met> Introduce(sys::Fd fd, const std::string& name, const Introduction& self, TimePoint deadline) {
  FrameStream stream(std::move(fd), kMaxHelloBytes);
  stream.Send(kHello, self.Encode());
  Greeting greeting;
  while (!greeting.kind) {
    if (!sys::WaitReady(stream.fd(), sys::Ready::kRead, deadline)) {
      return Fail(Code::kDeadlineExceeded, "{} takes connections, but does not answer: stopped, or no Cadre?",
                  name);
    }
    stream.Flush();
    stream.Read(greeting);
    if (stream.broken() && !greeting.kind) {
      return Fail(Code::kUnavailable, "{} did not answer: {}", name, stream.reason());
    }
  }
  if (greeting.kind == kSorry) {
    fabric::WireReader in(greeting.body);
    in.Get<uint32_t>();
    const Outcome outcome = Outcome::Decode(in);
    if (outcome.status) return Fail(Code::kDataLoss, "{} sent a broken message", name);
    return Fail(outcome.status.error().code, "{} refuses: {}", name, outcome.status.error().message);
  }
  if (greeting.kind != kWelcome) return Fail(Code::kDataLoss, "{} sent a broken message", name);
  auto peer = Introduction::Decode(greeting.body);
  if (!peer) return Fail(peer.error().code, "{}: {}", name, peer.error().message);
  Status fits = CheckCompatible(self.identity, peer->identity);
  if (fits) fits = CheckNotes(peer->identity, self.identity);
  if (!fits) return Fail(fits.error().code, "{}: {}", name, fits.error().message);
  stream.set_max_body(kMaxBodyBytes);
  return Met{std::move(stream), std::move(*peer)};
}

// The same agent by its Unix socket, with its pool.
Result<std::shared_ptr<Link>> Near(const std::string& name, const Introduction& far, const Introduction& self,
                                   TimePoint deadline) {
  CADRE_ASSIGN(sys::Fd fd, sys::ConnectUnix(far.unix_address, deadline));
  CADRE_ASSIGN(Met met, Introduce(std::move(fd), name, self, deadline));
  if (met.peer.nonce != far.nonce) return Fail(Code::kUnavailable, "its Unix socket is somebody else's");
  const sys::Fd memory = met.stream.TakeFd();
  if (!memory) return Fail(Code::kUnavailable, "it passed no memory");
  // Memory that can shrink would kill its readers.
  const int seals = fcntl(memory.get(), F_GET_SEALS);
  if (seals < 0 || (seals & F_SEAL_SHRINK) == 0) return Fail(Code::kDataLoss, "its memory is not sealed");
  const int64_t bytes = met.peer.identity.layout.AllBytes(met.peer.num_blocks);
  CADRE_ASSIGN(sys::Region region,
               sys::MapSegment(memory.get(), static_cast<size_t>(bytes), sys::Access::kRead));
  return std::make_shared<Link>(name, std::move(met.stream), std::move(met.peer), std::move(region));
}

}  // namespace

Result<std::shared_ptr<Link>> Dial(const PeerAddress& address, const Introduction& self, bool share_memory,
                                   TimePoint deadline) {
  const std::string name = Format("{}:{}", address.host, address.port);
  CADRE_ASSIGN(sys::Fd fd, sys::ConnectTcp(address.host, address.port, deadline));
  CADRE_ASSIGN(Met met, Introduce(std::move(fd), name, self, deadline));
  if (share_memory && !met.peer.unix_address.empty() && met.peer.boot_id == self.boot_id) {
    auto near = Near(name, met.peer, self, std::min(deadline, Now() + std::chrono::seconds(2)));
    if (near) return near;
    // Another network namespace or user on the same kernel.
    LogInfo("hand-off: {} is on this host, but shares no memory ({}); keys and values go over TCP", name,
            near.error().message);
  }
  return std::make_shared<Link>(name, std::move(met.stream), std::move(met.peer), sys::Region());
}

}  // namespace cadre::handoff
