#include "sys/sockets.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>

#include "base/check.h"
#include "sys/files.h"

namespace cadre::sys {
namespace {

constexpr uint32_t kFrameMagic = 0x31464443;  // "CDF1"

struct FrameHeader {
  uint32_t magic, kind, body_bytes, num_fds;
};

std::unexpected<Error> FailErrno(const std::string& what, int error) {
  return Fail(Code::kUnavailable, "cannot {}: {}", what, ErrnoText(error));
}

struct UnixAddress {
  sockaddr_un addr = {};
  socklen_t length = 0;
};

Result<UnixAddress> MakeUnixAddress(const std::string& address) {
  UnixAddress made;
  made.addr.sun_family = AF_UNIX;
  if (address.empty() || address.size() >= sizeof(made.addr.sun_path)) {
    return Fail(Code::kInvalidArgument, "'{}' is no Unix socket address: it needs 1 to {} characters",
                address, sizeof(made.addr.sun_path) - 1);
  }
  std::memcpy(made.addr.sun_path, address.data(), address.size());
  made.length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + address.size());
  if (address[0] == '@') {
    made.addr.sun_path[0] = '\0';
  } else {
    ++made.length;
  }
  return made;
}

using AddressList = std::unique_ptr<addrinfo, void (*)(addrinfo*)>;

Result<AddressList> Resolve(const std::string& host, uint16_t port, bool passive) {
  addrinfo hints = {};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV | (passive ? AI_PASSIVE : 0);
  addrinfo* list = nullptr;
  const int error =
      getaddrinfo(host.empty() ? nullptr : host.c_str(), std::to_string(port).c_str(), &hints, &list);
  if (error != 0)
    return Fail(Code::kNotFound, "cannot find the address of '{}': {}", host, gai_strerror(error));
  return AddressList(list, freeaddrinfo);
}

// Waits for a connect in progress. 0 or an errno value.
int FinishConnect(int fd, TimePoint deadline) {
  if (!WaitReady(fd, Ready::kWrite, deadline)) return ETIMEDOUT;
  int error = 0;
  socklen_t length = sizeof(error);
  getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length);
  return error;
}

bool WouldBlock(int error) {
  return error == EAGAIN || error == EWOULDBLOCK || error == EINTR;
}

std::unexpected<Error> PeerGone(int error) {
  if (error == 0) return Fail(Code::kUnavailable, "the peer closed the connection");
  return Fail(Code::kUnavailable, "the connection failed: {}", ErrnoText(error));
}

}  // namespace

Result<std::pair<Fd, Fd>> SocketPair() {
  int fds[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) != 0) {
    return FailErrno("make a socket pair", errno);
  }
  return std::pair(Fd(fds[0]), Fd(fds[1]));
}

Result<Fd> ListenUnix(const std::string& address) {
  CADRE_ASSIGN(const UnixAddress where, MakeUnixAddress(address));
  const auto* addr = reinterpret_cast<const sockaddr*>(&where.addr);
  Fd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd) return FailErrno("make a Unix socket", errno);
  if (bind(fd.get(), addr, where.length) != 0) {
    const int error = errno;
    // A socket file outlives its process; only one that nobody answers at may be taken over.
    const bool stale =
        error == EADDRINUSE && address[0] != '@' && !ConnectUnix(address, Now() + std::chrono::seconds(1));
    if (stale) unlink(address.c_str());
    if (!stale || bind(fd.get(), addr, where.length) != 0)
      return FailErrno("listen on '" + address + "'", error);
  }
  if (listen(fd.get(), 128) != 0) return FailErrno("listen on '" + address + "'", errno);
  return fd;
}

Result<Fd> ConnectUnix(const std::string& address, TimePoint deadline) {
  CADRE_ASSIGN(const UnixAddress where, MakeUnixAddress(address));
  Fd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd) return FailErrno("make a Unix socket", errno);
  while (connect(fd.get(), reinterpret_cast<const sockaddr*>(&where.addr), where.length) != 0) {
    const int error = errno;
    if (error == EINPROGRESS) {
      if (const int late = FinishConnect(fd.get(), deadline); late != 0) {
        return FailErrno("connect to '" + address + "'", late);
      }
      break;
    }
    // EAGAIN: the listener's queue is full.
    if (!WouldBlock(error) || Now() >= deadline) return FailErrno("connect to '" + address + "'", error);
    poll(nullptr, 0, 5);
  }
  return fd;
}

Result<Fd> ListenTcp(const std::string& host, uint16_t port) {
  CADRE_ASSIGN(const AddressList list, Resolve(host, port, true));
  int error = 0;
  for (const addrinfo* a = list.get(); a != nullptr; a = a->ai_next) {
    Fd fd(socket(a->ai_family, a->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, a->ai_protocol));
    const int on = 1;
    if (fd) setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (fd && bind(fd.get(), a->ai_addr, a->ai_addrlen) == 0 && listen(fd.get(), 512) == 0) return fd;
    error = errno;
  }
  return FailErrno(Format("listen on {}:{}", host.empty() ? "*" : host, port), error);
}

Result<Fd> ConnectTcp(const std::string& host, uint16_t port, TimePoint deadline) {
  CADRE_ASSIGN(const AddressList list, Resolve(host, port, false));
  int error = 0;
  for (const addrinfo* a = list.get(); a != nullptr; a = a->ai_next) {
    Fd fd(socket(a->ai_family, a->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, a->ai_protocol));
    if (!fd) {
      error = errno;
      continue;
    }
    SetNoDelay(fd.get());
    error = connect(fd.get(), a->ai_addr, a->ai_addrlen) == 0 ? 0 : errno;
    if (error == EINPROGRESS) error = FinishConnect(fd.get(), deadline);
    if (error == 0) return fd;
  }
  if (error == ETIMEDOUT) {
    return Fail(Code::kDeadlineExceeded, "no answer from {}:{}; is a firewall between, or the host down?",
                host, port);
  }
  return FailErrno(Format("connect to {}:{}", host, port), error);
}

Result<uint16_t> LocalPort(int fd) {
  sockaddr_storage addr = {};
  socklen_t length = sizeof(addr);
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&addr), &length) != 0)
    return FailErrno("ask a socket's port", errno);
  if (addr.ss_family == AF_INET) return ntohs(reinterpret_cast<const sockaddr_in*>(&addr)->sin_port);
  if (addr.ss_family == AF_INET6) return ntohs(reinterpret_cast<const sockaddr_in6*>(&addr)->sin6_port);
  return Fail(Code::kInvalidArgument, "a Unix socket has no port");
}

namespace {

std::string HostText(const sockaddr_storage& addr, socklen_t length) {
  char text[NI_MAXHOST];
  const auto* a = reinterpret_cast<const sockaddr*>(&addr);
  if (getnameinfo(a, length, text, sizeof(text), nullptr, 0, NI_NUMERICHOST) != 0) return "?";
  return text;
}

}  // namespace

std::string LocalHost(int fd) {
  sockaddr_storage addr = {};
  socklen_t length = sizeof(addr);
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&addr), &length) != 0) return "?";
  return HostText(addr, length);
}

std::string PeerHost(int fd) {
  sockaddr_storage addr = {};
  socklen_t length = sizeof(addr);
  if (getpeername(fd, reinterpret_cast<sockaddr*>(&addr), &length) != 0) return "?";
  return HostText(addr, length);
}

void SetNoDelay(int fd) {
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

Result<Fd> Accept(int listener, TimePoint deadline) {
  while (true) {
    Fd fd(accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (fd) {
      SetNoDelay(fd.get());
      return fd;
    }
    if (!WouldBlock(errno) && errno != ECONNABORTED) return FailErrno("accept a connection", errno);
    if (!WaitReady(listener, Ready::kRead, deadline)) {
      return Fail(Code::kDeadlineExceeded, "nobody connected in time");
    }
  }
}

Result<uint32_t> PeerUid(int fd) {
  ucred cred = {};
  socklen_t length = sizeof(cred);
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &length) != 0)
    return FailErrno("ask who is connected", errno);
  return cred.uid;
}

bool WaitReady(int fd, Ready what, TimePoint deadline) {
  pollfd entry = {fd, static_cast<short>(what == Ready::kRead ? POLLIN : POLLOUT), 0};
  while (true) {
    const auto left = deadline == TimePoint::max()
                          ? std::chrono::milliseconds(60'000)
                          : std::chrono::ceil<std::chrono::milliseconds>(deadline - Now());
    const auto ms = std::clamp<int64_t>(left.count(), 0, 60'000);
    const int n = poll(&entry, 1, static_cast<int>(ms));
    if (n > 0) return true;
    if (n < 0 && errno != EINTR) return true;  // let the next call on the socket report it
    if (ms == 0) return false;
  }
}

Status SendAll(int fd, std::span<const std::byte> bytes, TimePoint deadline) {
  while (!bytes.empty()) {
    const ssize_t n = send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n >= 0) {
      bytes = bytes.subspan(static_cast<size_t>(n));
    } else if (!WouldBlock(errno)) {
      return PeerGone(errno);
    } else if (!WaitReady(fd, Ready::kWrite, deadline)) {
      return Fail(Code::kDeadlineExceeded, "the peer did not take {} bytes in time", bytes.size());
    }
  }
  return {};
}

Status RecvAll(int fd, std::span<std::byte> bytes, TimePoint deadline) {
  while (!bytes.empty()) {
    const ssize_t n = recv(fd, bytes.data(), bytes.size(), 0);
    if (n > 0) {
      bytes = bytes.subspan(static_cast<size_t>(n));
    } else if (n == 0) {
      return PeerGone(0);
    } else if (!WouldBlock(errno)) {
      return PeerGone(errno);
    } else if (!WaitReady(fd, Ready::kRead, deadline)) {
      return Fail(Code::kDeadlineExceeded, "the peer did not send {} more bytes in time", bytes.size());
    }
  }
  return {};
}

Status SendFrame(int fd, uint32_t kind, std::string_view body, std::span<const int> fds, TimePoint deadline) {
  CADRE_CHECK(fds.size() <= kMaxFrameFds && body.size() <= UINT32_MAX);
  FrameHeader header = {kFrameMagic, kind, static_cast<uint32_t>(body.size()),
                        static_cast<uint32_t>(fds.size())};
  // The descriptors ride on the header's first byte; the header goes out in one piece or not at all (a Unix
  // stream socket splits no message of 16 bytes).
  iovec io = {&header, sizeof(header)};
  msghdr message = {};
  message.msg_iov = &io;
  message.msg_iovlen = 1;
  std::vector<std::byte> control(CMSG_SPACE(fds.size() * sizeof(int)));
  if (!fds.empty()) {
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    cmsghdr* entry = CMSG_FIRSTHDR(&message);
    entry->cmsg_level = SOL_SOCKET;
    entry->cmsg_type = SCM_RIGHTS;
    entry->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
    std::memcpy(CMSG_DATA(entry), fds.data(), fds.size() * sizeof(int));
  }
  ssize_t sent;
  while ((sent = sendmsg(fd, &message, MSG_NOSIGNAL)) < 0) {
    if (!WouldBlock(errno)) return PeerGone(errno);
    if (!WaitReady(fd, Ready::kWrite, deadline)) {
      return Fail(Code::kDeadlineExceeded, "the peer did not take a message in time");
    }
  }
  const auto header_bytes = std::as_bytes(std::span(&header, 1));
  CADRE_TRY(SendAll(fd, header_bytes.subspan(static_cast<size_t>(sent)), deadline));
  return SendAll(fd, std::as_bytes(std::span(body)), deadline);
}

Result<Frame> RecvFrame(int fd, size_t max_body, TimePoint deadline) {
  FrameHeader header = {};
  iovec io = {&header, sizeof(header)};
  alignas(cmsghdr) std::byte control[CMSG_SPACE(kMaxFrameFds * sizeof(int))];
  msghdr message = {};
  message.msg_iov = &io;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  ssize_t n;
  while ((n = recvmsg(fd, &message, MSG_CMSG_CLOEXEC)) < 0) {
    if (!WouldBlock(errno)) return PeerGone(errno);
    if (!WaitReady(fd, Ready::kRead, deadline)) {
      return Fail(Code::kDeadlineExceeded, "the peer did not send a message in time");
    }
  }
  if (n == 0) return PeerGone(0);
  Frame frame;
  for (cmsghdr* entry = CMSG_FIRSTHDR(&message); entry != nullptr; entry = CMSG_NXTHDR(&message, entry)) {
    if (entry->cmsg_level != SOL_SOCKET || entry->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (entry->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int passed;
      std::memcpy(&passed, CMSG_DATA(entry) + i * sizeof(int), sizeof(int));
      frame.fds.emplace_back(passed);
    }
  }
  CADRE_TRY(
      RecvAll(fd, std::as_writable_bytes(std::span(&header, 1)).subspan(static_cast<size_t>(n)), deadline));
  if (header.magic != kFrameMagic) return Fail(Code::kDataLoss, "the peer does not speak this protocol");
  if (header.body_bytes > max_body) {
    return Fail(Code::kDataLoss, "the peer announced a message of {} bytes; at most {} are allowed",
                header.body_bytes, max_body);
  }
  if (header.num_fds != frame.fds.size()) {
    return Fail(Code::kDataLoss,
                "a message came with {} of {} descriptors; is the limit on open files too low?",
                frame.fds.size(), header.num_fds);
  }
  frame.kind = header.kind;
  frame.body.resize(header.body_bytes);
  CADRE_TRY(RecvAll(fd, std::as_writable_bytes(std::span(frame.body)), deadline));
  return frame;
}

}  // namespace cadre::sys
