#include "handoff/frames.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "base/check.h"
#include "sys/files.h"

namespace cadre::handoff {
namespace {

constexpr size_t kReadBytes = 64 << 10;
constexpr size_t kTailBytes = 512;  // behind a piece: the next one's heads, and little of its bytes
constexpr size_t kMaxRuns = 1000;   // the kernel takes 1024 (IOV_MAX)
constexpr int64_t kReadTurn = 4 << 20;
constexpr int64_t kMaxUnsent = 256 << 20;

alignas(64) constexpr std::array<char, 64 << 10> kZeros = {};

bool WouldBlock(int error) {
  return error == EAGAIN || error == EWOULDBLOCK || error == EINTR;
}

std::string Packed(FrameKind kind, size_t bytes) {
  const FrameHead head = {.kind = kind, .bytes = static_cast<uint32_t>(bytes)};
  return {reinterpret_cast<const char*>(&head), sizeof(head)};
}

}  // namespace

FrameStream::FrameStream(sys::Fd fd, uint32_t max_body) : fd_(std::move(fd)), max_body_(max_body) {
  // A peer whose machine is gone is found out within a minute, also when nothing is under way. Unix sockets
  // refuse this harmlessly.
  const int on = 1, idle_s = 30, interval_s = 10, count = 3;
  setsockopt(fd_.get(), SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
  setsockopt(fd_.get(), IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
  setsockopt(fd_.get(), IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof(interval_s));
  setsockopt(fd_.get(), IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
}

void FrameStream::Break(std::string reason) {
  if (broken_) return;
  broken_ = true;
  reason_ = std::move(reason);
  out_.clear();
  out_bytes_ = 0;
  data_.reset();
}

void FrameStream::Pace(double bytes_per_s) {
  if (bytes_per_s == pace_) return;
  pace_ = bytes_per_s;
  // All ones: no limit. The kernel takes 64 bits since 5.0.
  const uint64_t rate =
      bytes_per_s > 0 ? static_cast<uint64_t>(std::clamp(bytes_per_s, 1e3, 1e15)) : ~uint64_t{0};
  setsockopt(fd_.get(), SOL_SOCKET, SO_MAX_PACING_RATE, &rate, sizeof(rate));
}

bool FrameStream::Read(FrameSink& sink) {
  int64_t taken = 0;
  while (!broken_ && taken < kReadTurn) {
    const ssize_t n = ReadSome();
    if (n <= 0) return false;
    taken += n;
    while (!broken_ && Parse(sink)) {
    }
    in_.erase(0, in_at_);
    in_at_ = 0;
  }
  return !broken_;
}

ssize_t FrameStream::ReadSome() {
  char buffer[kReadBytes];
  std::array<iovec, kMaxRuns + 1> io;
  size_t num_io = 0, bytes_ahead = 0;
  if (data_ && data_->wanted) {
    for (size_t i = data_->run; i < data_->runs.size() && num_io < kMaxRuns; ++i, ++num_io) {
      const size_t skip = i == data_->run ? data_->at : 0;
      io[num_io] = {static_cast<char*>(data_->runs[i].iov_base) + skip, data_->runs[i].iov_len - skip};
      bytes_ahead += io[num_io].iov_len;
    }
  }
  // What follows a piece is read behind it only if all of it fits before.
  const bool whole = !data_ || static_cast<int64_t>(bytes_ahead) == data_->left;
  if (whole || num_io == 0) io[num_io++] = {buffer, data_ && data_->wanted ? kTailBytes : sizeof(buffer)};
  alignas(cmsghdr) char control[CMSG_SPACE(4 * sizeof(int))];
  msghdr message = {};
  message.msg_iov = io.data();
  message.msg_iovlen = num_io;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  const ssize_t n = recvmsg(fd_.get(), &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (n < 0 && WouldBlock(errno)) return 0;
  if (n <= 0) {
    Break(n == 0 ? "closed by the other side" : sys::ErrnoText(errno));
    return -1;
  }
  for (cmsghdr* entry = CMSG_FIRSTHDR(&message); entry != nullptr; entry = CMSG_NXTHDR(&message, entry)) {
    if (entry->cmsg_level != SOL_SOCKET || entry->cmsg_type != SCM_RIGHTS) continue;
    for (size_t at = 0; at + sizeof(int) <= entry->cmsg_len - CMSG_LEN(0); at += sizeof(int)) {
      int fd;
      std::memcpy(&fd, CMSG_DATA(entry) + at, sizeof(fd));
      passed_ = sys::Fd(fd);  // more than one were never asked for: the last one stays, the others close
    }
  }
  auto placed = std::min(static_cast<int64_t>(n), static_cast<int64_t>(bytes_ahead));
  if (placed > 0) Advance(placed);
  in_.append(buffer, static_cast<size_t>(n - placed));
  return n;
}

void FrameStream::Advance(int64_t bytes) {
  data_->left -= bytes;
  while (bytes > 0 && data_->wanted) {
    const auto room = static_cast<int64_t>(data_->runs[data_->run].iov_len - data_->at);
    if (bytes < room) {
      data_->at += static_cast<size_t>(bytes);
      return;
    }
    bytes -= room;
    ++data_->run;
    data_->at = 0;
  }
}

void FrameStream::TakeBuffered() {
  while (data_->left > 0 && in_at_ < in_.size()) {
    int64_t bytes = std::min(static_cast<int64_t>(in_.size() - in_at_), data_->left);
    if (data_->wanted) {
      const iovec& run = data_->runs[data_->run];
      bytes = std::min(bytes, static_cast<int64_t>(run.iov_len - data_->at));
      std::memcpy(static_cast<char*>(run.iov_base) + data_->at, in_.data() + in_at_,
                  static_cast<size_t>(bytes));
    }
    in_at_ += static_cast<size_t>(bytes);
    Advance(bytes);
  }
}

// One frame, or a part of a piece. False when more bytes are needed.
bool FrameStream::Parse(FrameSink& sink) {
  if (data_) {
    TakeBuffered();
    if (data_->left > 0) return false;
    EndData(sink);
    return true;
  }
  const size_t have = in_.size() - in_at_;
  FrameHead frame;
  if (have < sizeof(frame.magic)) return false;
  std::memcpy(&frame, in_.data() + in_at_, std::min(have, sizeof(frame)));
  if (frame.magic != kFrameMagic) {
    Break("it does not speak this protocol");
    return false;
  }
  if (have < sizeof(frame)) return false;
  if (frame.kind == kData) return BeginData(frame, sink);
  if (frame.bytes > max_body_) {
    Break(Format("it announced a message of {} bytes; at most {} are taken", frame.bytes, max_body_));
    return false;
  }
  if (have < sizeof(frame) + frame.bytes) return false;
  std::string body = in_.substr(in_at_ + sizeof(frame), frame.bytes);
  in_at_ += sizeof(frame) + frame.bytes;
  sink.Heard(static_cast<FrameKind>(frame.kind), std::move(body));
  return true;
}

bool FrameStream::BeginData(const FrameHead& frame, FrameSink& sink) {
  if (frame.bytes < sizeof(DataHead) || frame.bytes > INT32_MAX) {
    Break("it sent a broken piece");
    return false;
  }
  if (in_.size() - in_at_ < sizeof(frame) + sizeof(DataHead)) return false;
  In piece;
  std::memcpy(&piece.head, in_.data() + in_at_ + sizeof(frame), sizeof(DataHead));
  in_at_ += sizeof(frame) + sizeof(DataHead);
  piece.left = static_cast<int64_t>(frame.bytes - sizeof(DataHead));
  piece.runs = sink.Land(piece.head, piece.left);
  if (broken_) return false;
  piece.wanted = !piece.runs.empty();
  CADRE_CHECK(!piece.wanted || BytesOf(piece.runs) == piece.left);
  data_ = std::move(piece);
  return true;
}

void FrameStream::EndData(FrameSink& sink) {
  const In piece = std::move(*data_);
  data_.reset();
  if (piece.wanted) sink.Landed(piece.head);
}

void FrameStream::Abandon(uint32_t stream) {
  if (data_ && data_->head.stream == stream) data_->wanted = false;
}

void FrameStream::Send(FrameKind kind, std::string_view body, int fd) {
  if (broken_) return;
  Out out;
  out.bytes = Packed(kind, body.size()).append(body);
  if (fd >= 0) {
    Flush();
    iovec io = {out.bytes.data(), out.bytes.size()};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    msghdr message = {};
    message.msg_iov = &io;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    cmsghdr* entry = CMSG_FIRSTHDR(&message);
    entry->cmsg_level = SOL_SOCKET;
    entry->cmsg_type = SCM_RIGHTS;
    entry->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(entry), &fd, sizeof(fd));
    const bool sent = out_.empty() && sendmsg(fd_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT) ==
                                          static_cast<ssize_t>(out.bytes.size());
    if (!sent) Break("it takes no messages");
    return;
  }
  out_bytes_ += static_cast<int64_t>(out.bytes.size());
  if (out_bytes_ > kMaxUnsent) return Break("it takes no messages");
  out_.push_back(std::move(out));
  Flush();
}

void FrameStream::SendData(const DataHead& head, Runs runs) {
  if (broken_) return;
  Out out;
  const int64_t bytes = BytesOf(runs);
  out.bytes = Packed(kData, sizeof(head) + static_cast<size_t>(bytes));
  out.bytes.append(reinterpret_cast<const char*>(&head), sizeof(head));
  out_bytes_ += static_cast<int64_t>(out.bytes.size()) + bytes;
  out.runs = std::move(runs);
  out.stream = head.stream;
  out_.push_back(std::move(out));
  Flush();
}

void FrameStream::Flush() {
  while (!broken_ && !out_.empty()) {
    std::array<iovec, kMaxRuns> io;
    size_t num_io = 0;
    for (auto out = out_.begin(); out != out_.end() && num_io < kMaxRuns; ++out) {
      const size_t skip = out == out_.begin() ? out_at_ : 0;
      if (skip < out->bytes.size()) io[num_io++] = {out->bytes.data() + skip, out->bytes.size() - skip};
      for (size_t i = out->run; i < out->runs.size() && num_io < kMaxRuns; ++i) io[num_io++] = out->runs[i];
    }
    msghdr message = {};
    message.msg_iov = io.data();
    message.msg_iovlen = num_io;
    const ssize_t n = sendmsg(fd_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && WouldBlock(errno)) return;
    if (n < 0) return Break(sys::ErrnoText(errno));
    Sent(n);
  }
}

void FrameStream::Sent(int64_t bytes) {
  num_sent_ += bytes;
  out_bytes_ -= bytes;
  while (!out_.empty()) {
    Out& out = out_.front();
    const int64_t head = std::min(bytes, static_cast<int64_t>(out.bytes.size() - out_at_));
    out_at_ += static_cast<size_t>(head);
    bytes -= head;
    if (out_at_ < out.bytes.size()) return;
    for (; out.run < out.runs.size(); ++out.run) {
      iovec& run = out.runs[out.run];
      const size_t gone = std::min(static_cast<size_t>(bytes), run.iov_len);
      run = {static_cast<char*>(run.iov_base) + gone, run.iov_len - gone};
      bytes -= static_cast<int64_t>(gone);
      if (run.iov_len > 0) return;
    }
    out_.pop_front();
    out_at_ = 0;
  }
}

void FrameStream::Void(uint32_t stream) {
  for (size_t i = 0; i < out_.size();) {
    Out& out = out_[i];
    if (out.stream != stream) {
      ++i;
      continue;
    }
    int64_t left = 0;
    for (size_t r = out.run; r < out.runs.size(); ++r) left += static_cast<int64_t>(out.runs[r].iov_len);
    if (i > 0 || out_at_ == 0) {  // nothing of it has gone
      out_bytes_ -= left + static_cast<int64_t>(out.bytes.size());
      out_.erase(out_.begin() + static_cast<ptrdiff_t>(i));
      continue;
    }
    out.runs.clear();
    out.run = 0;
    for (; left > 0; left -= static_cast<int64_t>(out.runs.back().iov_len)) {
      out.runs.push_back(
          {const_cast<char*>(kZeros.data()), std::min(static_cast<size_t>(left), kZeros.size())});
    }
    ++i;
  }
}

}  // namespace cadre::handoff
