#pragma once
// A connection that carries frames and never blocks: what comes is read as far as it has come, what goes is
// kept until it can go. Whatever the other side does costs it the connection, and us at most the bytes of one
// frame.
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "sys/fd.h"

namespace cadre::group {

struct HostFrame {
  uint32_t kind = 0;
  std::string body;
};

class FrameStream {
 public:
  FrameStream(sys::Fd fd, size_t max_body) : fd_(std::move(fd)), max_body_(max_body) {}

  int fd() const { return fd_.get(); }
  void set_max_body(size_t bytes) { max_body_ = bytes; }

  /// Takes what has come; complete frames are added to `frames`.
  void Read(std::vector<HostFrame>& frames);
  /// Sends, or keeps for Flush.
  void Send(uint32_t kind, std::string_view body);
  void Flush();
  bool unsent() const { return !out_.empty(); }

  bool broken() const { return broken_; }
  /// Why: "closed by the other side", "it does not speak this protocol".
  const std::string& reason() const { return reason_; }

 private:
  void Break(std::string reason);

  sys::Fd fd_;
  size_t max_body_;
  std::string in_;
  std::deque<std::string> out_;
  size_t out_at_ = 0, out_bytes_ = 0;
  bool broken_ = false;
  std::string reason_;
};

}  // namespace cadre::group
