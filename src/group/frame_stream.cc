#include "group/frame_stream.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/format.h"
#include "sys/files.h"

namespace cadre::group {
namespace {

constexpr uint32_t kMagic = 0x31484443;           // "CDH1"
constexpr size_t kMaxUnsent = size_t{256} << 20;  // a peer that takes nothing is silent anyway
constexpr size_t kReadBytes = size_t{64} << 10;

struct FrameHead {
  uint32_t magic, kind, bytes;
};

bool WouldBlock(int error) {
  return error == EAGAIN || error == EWOULDBLOCK || error == EINTR;
}

}  // namespace

void FrameStream::Break(std::string reason) {
  if (broken_) return;
  broken_ = true;
  reason_ = std::move(reason);
  out_.clear();
  in_.clear();
}

void FrameStream::Read(std::vector<HostFrame>& frames) {
  char buffer[kReadBytes];
  // Bounded, so that one peer that sends without end cannot hold the others.
  for (int i = 0; i < 64 && !broken_; ++i) {
    const ssize_t n = recv(fd_.get(), buffer, sizeof(buffer), MSG_DONTWAIT);
    if (n < 0 && WouldBlock(errno)) return;
    if (n < 0) return Break(sys::ErrnoText(errno));
    if (n == 0) return Break("closed by the other side");
    in_.append(buffer, static_cast<size_t>(n));
    size_t at = 0;
    while (in_.size() - at >= sizeof(uint32_t)) {
      FrameHead head = {};
      std::memcpy(&head, in_.data() + at, std::min(sizeof(head), in_.size() - at));
      if (head.magic != kMagic) return Break("it does not speak this protocol");
      if (in_.size() - at < sizeof(head)) break;
      if (head.bytes > max_body_) return Break(Format("it announced a message of {} bytes", head.bytes));
      if (in_.size() - at - sizeof(head) < head.bytes) break;
      frames.push_back({head.kind, in_.substr(at + sizeof(head), head.bytes)});
      at += sizeof(head) + head.bytes;
    }
    in_.erase(0, at);
    if (static_cast<size_t>(n) < sizeof(buffer)) return;
  }
}

void FrameStream::Send(uint32_t kind, std::string_view body) {
  if (broken_) return;
  const FrameHead head = {kMagic, kind, static_cast<uint32_t>(body.size())};
  std::string frame(reinterpret_cast<const char*>(&head), sizeof(head));
  frame.append(body);
  out_bytes_ += frame.size();
  if (out_bytes_ > kMaxUnsent) return Break("it takes no messages");
  out_.push_back(std::move(frame));
  Flush();
}

void FrameStream::Flush() {
  while (!broken_ && !out_.empty()) {
    const std::string& frame = out_.front();
    const ssize_t n =
        send(fd_.get(), frame.data() + out_at_, frame.size() - out_at_, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && WouldBlock(errno)) return;
    if (n < 0) return Break(sys::ErrnoText(errno));
    out_at_ += static_cast<size_t>(n);
    if (out_at_ < frame.size()) return;
    out_bytes_ -= frame.size();
    out_.pop_front();
    out_at_ = 0;
  }
}

}  // namespace cadre::group
