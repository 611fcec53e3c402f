#pragma once
// An owner of memory in a process of its own (remote_memory.h says why), for tests and benchmarks: its
// process is the program memory_owner, and takes orders over a socket.
#include <signal.h>
#include <sys/wait.h>

#include <memory>
#include <string>
#include <vector>

#include "fabric/remote_memory.h"
#include "sys/process.h"
#include "sys/sockets.h"

namespace cadre::fabric::test {

constexpr int kOrders = 3;  // memory_owner's descriptor of that socket

// Both sides' words are texts, after their number of bytes.
inline bool Tell(int fd, std::string_view text) {
  const uint64_t bytes = text.size();
  const TimePoint deadline = Now() + std::chrono::seconds(20);
  return sys::SendAll(fd, std::as_bytes(std::span(&bytes, 1)), deadline) &&
         sys::SendAll(fd, std::as_bytes(std::span(text)), deadline);
}
/// Nullopt when the other side has gone.
inline std::optional<std::string> Hear(int fd, TimePoint deadline = TimePoint::max()) {
  uint64_t bytes = 0;
  if (!sys::RecvAll(fd, std::as_writable_bytes(std::span(&bytes, 1)), deadline)) return std::nullopt;
  std::string text(bytes, '\0');
  if (!sys::RecvAll(fd, std::as_writable_bytes(std::span(text)), deadline)) return std::nullopt;
  return text;
}

class OwnerProcess {
 public:
  /// Runs memory_owner, at `program`. Null, with why, where UCX cannot be used.
  static std::unique_ptr<OwnerProcess> Start(const std::string& program, bool direct, std::string& why,
                                             std::vector<std::pair<std::string, std::string>> env = {}) {
    auto pair = sys::SocketPair();
    if (!pair) return Refuse(why, pair.error().message);
    auto child = sys::Child::Spawn({.program = program,
                                    .args = {direct ? "direct" : "asked"},
                                    .env = std::move(env),
                                    .fds = {{pair->second.get(), kOrders}},
                                    .capture = false});
    if (!child) return Refuse(why, child.error().message);
    pair->second = {};
    std::unique_ptr<OwnerProcess> owner(new OwnerProcess(std::move(*child), std::move(pair->first)));
    why = owner->Answer();
    owner->port_ = owner->Answer();
    return owner->port_.empty() ? nullptr : std::move(owner);
  }

  const std::string& port() const { return port_; }
  int pid() const { return child_->pid(); }

  /// Lets a copy of these bytes be read, until Unmap. One without a key where that failed.
  MemoryRegion Map(std::span<const std::byte> data) {
    Tell(socket_.get(), "map");
    Tell(socket_.get(), {reinterpret_cast<const char*>(data.data()), data.size()});
    const std::string address = Answer();
    return {.address = std::strtoull(address.c_str(), nullptr, 10), .bytes = data.size(), .key = Answer()};
  }
  void Unmap(const MemoryRegion& region) {
    Tell(socket_.get(), "unmap");
    Tell(socket_.get(), region.key);
    Answer();
  }
  /// Ends the owner; its process and what it mapped stay.
  void End() {
    Tell(socket_.get(), "end");
    Answer();
  }

  void Stop() {
    child_->Kill(SIGSTOP);
    waitpid(pid(), nullptr, WUNTRACED);  // all of its threads stand
  }
  void Continue() { child_->Kill(SIGCONT); }
  void Kill() { child_->Kill(SIGKILL); }
  bool runs() { return !child_->Wait(Now()); }

 private:
  OwnerProcess(std::unique_ptr<sys::Child> child, sys::Fd socket)
      : child_(std::move(child)), socket_(std::move(socket)) {}
  static std::unique_ptr<OwnerProcess> Refuse(std::string& why, std::string reason) {
    why = std::move(reason);
    return nullptr;
  }
  std::string Answer() {
    return Hear(socket_.get(), Now() + std::chrono::seconds(20)).value_or("no answer of memory_owner");
  }

  std::unique_ptr<sys::Child> child_;
  sys::Fd socket_;
  std::string port_;
};

}  // namespace cadre::fabric::test
