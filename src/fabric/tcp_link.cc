#include "fabric/tcp_link.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <utility>

#include "fabric/tcp_port_hello.h"
#include "sys/files.h"

namespace cadre::fabric {
namespace {

constexpr uint32_t kShareMagic = 0x314D4443;           // "CDM1"
constexpr uint64_t kSplitBytes = uint64_t{256} << 10;  // smaller messages are not worth a second connection

bool WouldBlock(int error) {
  return error == EAGAIN || error == EWOULDBLOCK || error == EINTR;
}

// The bytes [at, at + bytes) of a message as parts for sendmsg.
void Slice(std::span<const Piece> pieces, uint64_t at, uint64_t bytes, std::vector<iovec>& parts) {
  for (const Piece& piece : pieces) {
    if (bytes == 0) return;
    if (at >= piece.bytes) {
      at -= piece.bytes;
      continue;
    }
    const uint64_t n = std::min<uint64_t>(piece.bytes - at, bytes);
    parts.push_back({const_cast<std::byte*>(piece.data) + at, n});
    bytes -= n;
    at = 0;
  }
}

}  // namespace

TcpLink::TcpLink(TcpPort* port, std::string peer_name, LinkSink* sink, std::vector<sys::Fd> rails)
    : port_(port), peer_name_(std::move(peer_name)), sink_(sink) {
  for (sys::Fd& fd : rails) {
    auto rail = std::make_unique<Rail>();
    rail->link = this;
    rail->fd = std::move(fd);
    port_->Watch(*rail);
    rails_.push_back(std::move(rail));
  }
}

TcpLink::~TcpLink() {
  for (const auto& rail : rails_) port_->Forget(*rail);
}

void TcpLink::Break(Error error) {
  if (!status_) return;
  status_ = std::unexpected(std::move(error));
  for (const auto& rail : rails_) {
    port_->Forget(*rail);
    rail->fd.Reset();
    rail->queue.clear();
  }
}

void TcpLink::BreakErrno(const char* what, int error) {
  Break({Code::kUnavailable,
         error == 0 ? std::string("the other side closed it") : Format("{}: {}", what, sys::ErrnoText(error)),
         {}});
}

bool TcpLink::sent() const {
  return !status_ || std::ranges::all_of(rails_, [](const auto& rail) { return rail->queue.empty(); });
}

void TcpLink::Queue(Rail& rail, const MessageHead& head, std::span<const Piece> pieces, uint64_t at,
                    uint64_t bytes) {
  Outgoing& out = rail.queue.emplace_back();  // a deque: its elements stay where they are
  out.head = {kShareMagic, head.channel, head.round, 0, head.offset, head.bytes, at, bytes};
  out.parts.reserve(pieces.size() + 1);
  out.parts.push_back({&out.head, sizeof(out.head)});
  Slice(pieces, at, bytes, out.parts);
  if (rail.queue.size() == 1) Flush(rail);
}

void TcpLink::Send(const MessageHead& head, std::span<const Piece> pieces) {
  if (!status_) return;
  const uint64_t shares = head.bytes < kSplitBytes ? 1 : rails_.size();
  for (uint64_t s = 0; s < shares && status_; ++s) {
    const uint64_t from = head.bytes * s / shares, to = head.bytes * (s + 1) / shares;
    Queue(*rails_[s], head, pieces, from, to - from);
  }
}

bool TcpLink::Flush(Rail& rail) {
  bool moved = false;
  while (status_ && !rail.queue.empty()) {
    Outgoing& out = rail.queue.front();
    msghdr message = {};
    message.msg_iov = out.parts.data() + out.next;
    message.msg_iovlen = std::min<size_t>(out.parts.size() - out.next, IOV_MAX);
    const ssize_t sent = sendmsg(rail.fd.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0) {
      if (!WouldBlock(errno)) BreakErrno("sending failed", errno);
      return moved;
    }
    moved = true;
    auto left = static_cast<size_t>(sent);
    for (; out.next < out.parts.size() && left >= out.parts[out.next].iov_len; ++out.next) {
      left -= out.parts[out.next].iov_len;
    }
    if (out.next == out.parts.size()) {
      rail.queue.pop_front();
      continue;
    }
    iovec& part = out.parts[out.next];
    part.iov_base = static_cast<std::byte*>(part.iov_base) + left;
    part.iov_len -= left;
  }
  return moved;
}

// The head is complete: find the place of the bytes.
Status TcpLink::BeginShare(Rail& rail) {
  const ShareHead& share = rail.head;
  if (share.magic != kShareMagic || share.bytes > share.total || share.at > share.total - share.bytes) {
    return Fail(Code::kDataLoss, "{} sent what is no message", peer_name_);
  }
  const MessageHead head = {share.channel, share.round, share.offset, share.total};
  const auto at = arriving_.find(share.channel);
  if (at != arriving_.end() &&
      (at->second.head.round != share.round || at->second.head.bytes != share.total ||
       at->second.head.offset != share.offset)) {
    return Fail(Code::kDataLoss, "{} sent two messages at once on channel {}", peer_name_, share.channel);
  }
  CADRE_ASSIGN(std::byte* const place, sink_->Place(head));
  if (share.bytes < share.total) arriving_[share.channel].head = head;
  rail.place = place + share.at;
  rail.body_got = 0;
  return {};
}

void TcpLink::FinishShare(Rail& rail) {
  rail.head_got = 0;
  const ShareHead& share = rail.head;
  const MessageHead head = {share.channel, share.round, share.offset, share.total};
  if (share.bytes < share.total) {
    Arrival& arrival = arriving_[share.channel];
    arrival.got += share.bytes;
    if (arrival.got < share.total) return;
    arriving_.erase(share.channel);
  }
  sink_->Arrived(head);
}

bool TcpLink::ReceiveBody(Rail& rail) {
  bool moved = false;
  while (rail.body_got < rail.head.bytes) {
    const ssize_t n =
        recv(rail.fd.get(), rail.place + rail.body_got, rail.head.bytes - rail.body_got, MSG_DONTWAIT);
    if (n > 0) {
      rail.body_got += static_cast<uint64_t>(n);
      moved = true;
      continue;
    }
    if (n == 0 || !WouldBlock(errno)) BreakErrno("receiving failed", n == 0 ? 0 : errno);
    return moved;
  }
  FinishShare(rail);
  return true;
}

bool TcpLink::Receive(Rail& rail) {
  if (!status_) return false;
  if (rail.head_got == sizeof(ShareHead)) return ReceiveBody(rail);
  const ssize_t n = recv(rail.fd.get(), reinterpret_cast<std::byte*>(&rail.head) + rail.head_got,
                         sizeof(ShareHead) - rail.head_got, MSG_DONTWAIT);
  if (n <= 0) {
    if (n == 0 || !WouldBlock(errno)) BreakErrno("receiving failed", n == 0 ? 0 : errno);
    return false;
  }
  rail.head_got += static_cast<size_t>(n);
  if (rail.head_got < sizeof(ShareHead)) return true;
  if (Status begun = BeginShare(rail); !begun) {
    Break(std::move(begun).error());
    return false;
  }
  ReceiveBody(rail);
  return true;
}

}  // namespace cadre::fabric
