#include "python/engine/local_meeting.h"

#include <poll.h>
#include <unistd.h>

#include <vector>

#include "fabric/wire.h"
#include "sys/sockets.h"

namespace cadre::python {
namespace {

enum Kind : uint32_t { kHere = 0x6361'0001, kEnd, kNo };

constexpr size_t kMaxWords = 4096;
constexpr auto kHelloTime = std::chrono::seconds(2);  // for one process to say its words

// The launcher's address and port in a name of fixed length (an abstract name has at most 107 bytes).
uint64_t HashOf(const std::string& text) {
  uint64_t hash = 0xcbf29ce484222325;  // FNV-1a
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return hash;
}

}  // namespace

std::string LocalMeeting::Address() const {
  const int first_rank = options_.rank - options_.local_rank;
  return Format("@cadre-python-{}-{:016x}", getuid(),
                HashOf(Format("{} {} {}", options_.address, options_.port, first_rank)));
}

// What all processes of a host must agree about.
std::string LocalMeeting::Numbers() const {
  return Format("WORLD_SIZE {}, LOCAL_WORLD_SIZE {}", options_.size, options_.local_size);
}

Result<sys::Fd> LocalMeeting::Listen() const {
  auto listener = sys::ListenUnix(Address());
  if (listener) return listener;
  return Fail(
      Code::kUnavailable,
      "another group of processes on this host uses MASTER_ADDR {} and MASTER_PORT {} now, or two processes "
      "have LOCAL_RANK 0 ({})",
      options_.address, options_.port, listener.error().message);
}

Status LocalMeeting::HandOut(const sys::Fd& listener, fabric::Broker& broker, TimePoint deadline) const {
  std::vector<bool> came(static_cast<size_t>(options_.local_size));
  came[0] = true;
  for (int missing = options_.local_size - 1; missing > 0;) {
    auto caller = sys::Accept(listener.get(), deadline);
    if (!caller) {
      if (caller.error().code != Code::kDeadlineExceeded) return std::unexpected(caller.error());
      std::vector<int> ranks;
      for (int r = 0; r < options_.local_size; ++r) {
        if (!came[static_cast<size_t>(r)]) ranks.push_back(options_.rank + r);
      }
      return Fail(Code::kDeadlineExceeded, "{} did not come within {} s", fabric::NameRanks(ranks),
                  fabric::SecondsText(options_.timeout));
    }
    const auto uid = sys::PeerUid(caller->get());
    if (!uid || *uid != getuid()) continue;
    const TimePoint soon = std::min(deadline, Now() + kHelloTime);
    auto frame = sys::RecvFrame(caller->get(), kMaxWords, soon);
    if (!frame || frame->kind != kHere) continue;
    fabric::WireReader reader(std::move(frame->body));
    const auto local_rank = reader.Get<int32_t>();
    const std::string numbers = reader.GetText();
    if (!reader.ok()) continue;
    std::string wrong;
    if (numbers != Numbers()) {
      wrong = Format("rank {} was started with {}, the first process of this host with {}",
                     options_.rank + local_rank, numbers, Numbers());
    } else if (local_rank < 1 || local_rank >= options_.local_size || came[static_cast<size_t>(local_rank)]) {
      wrong = Format("two processes of this host have LOCAL_RANK {}", local_rank);
    }
    if (!wrong.empty()) {
      [[maybe_unused]] const Status told = sys::SendFrame(caller->get(), kNo, wrong, {}, soon);
      return Fail(Code::kInvalidArgument, "{}", wrong);
    }
    const int end = broker.ChildEnd(local_rank);
    if (!sys::SendFrame(caller->get(), kEnd, {}, {&end, 1}, soon)) continue;  // it may try again
    broker.CloseChildEnd(local_rank);
    came[static_cast<size_t>(local_rank)] = true;
    --missing;
  }
  return {};
}

Result<sys::Fd> LocalMeeting::Attend(TimePoint deadline) const {
  fabric::WireWriter hello;
  hello.Put(int32_t{options_.local_rank}).PutText(Numbers());
  std::string last = "nobody listens";
  while (true) {
    if (auto host = sys::ConnectUnix(Address(), deadline)) {
      const auto uid = sys::PeerUid(host->get());
      if (!uid || *uid != getuid())
        return Fail(Code::kUnavailable, "another user's process stands where rank {} was expected",
                    options_.rank - options_.local_rank);
      const Status said = sys::SendFrame(host->get(), kHere, hello.text(), {}, deadline);
      auto frame = said ? sys::RecvFrame(host->get(), kMaxWords, deadline)
                        : Result<sys::Frame>(std::unexpected(said.error()));
      if (frame && frame->kind == kEnd && frame->fds.size() == 1) return std::move(frame->fds[0]);
      if (frame && frame->kind == kNo) return Fail(Code::kInvalidArgument, "{}", Excerpt(frame->body, 500));
      if (!frame) last = frame.error().message;
    }
    // Started before the first process, or it gave up a moment ago and is started again.
    if (Now() >= deadline) {
      return Fail(
          Code::kDeadlineExceeded,
          "rank {}, the first process of this host, did not come within {} s ({}); were all processes "
          "started with MASTER_ADDR {} and MASTER_PORT {}?",
          options_.rank - options_.local_rank, fabric::SecondsText(options_.timeout), last, options_.address,
          options_.port);
    }
    poll(nullptr, 0, 20);
  }
}

}  // namespace cadre::python
