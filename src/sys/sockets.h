#pragma once
// Stream sockets with deadlines, and frames (with file descriptors on Unix sockets) over them.
// All descriptors made here are non-blocking and close on exec; no call raises SIGPIPE.
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "sys/fd.h"

namespace cadre::sys {

/// Two connected Unix sockets, to be split over a parent and a child.
Result<std::pair<Fd, Fd>> SocketPair();

/// Listens on a Unix socket. "@name" is abstract: nothing in the file system, gone with its process, visible
/// inside one network namespace; whoever accepts must look at PeerUid. A path that is in use by a dead
/// process is taken over.
Result<Fd> ListenUnix(const std::string& address);
Result<Fd> ConnectUnix(const std::string& address, TimePoint deadline);

/// Listens on TCP; `host` is an address or name, "" for all interfaces; port 0: any (LocalPort tells which).
/// Errors: kUnavailable with the system's reason; a port in use is named.
Result<Fd> ListenTcp(const std::string& host, uint16_t port);
/// Tries each address of `host` until one answers. Errors: kNotFound for a name that does not resolve,
/// kUnavailable or kDeadlineExceeded with the last reason.
Result<Fd> ConnectTcp(const std::string& host, uint16_t port, TimePoint deadline);
Result<uint16_t> LocalPort(int fd);
/// The numeric address of this end, and of the other end, of a TCP connection; "?" if it has none.
std::string LocalHost(int fd);
std::string PeerHost(int fd);
/// What is written goes out at once. Fails harmlessly on other sockets.
void SetNoDelay(int fd);

/// The next connection. Errors: kDeadlineExceeded.
Result<Fd> Accept(int listener, TimePoint deadline);
/// The user at the other end of a Unix socket.
Result<uint32_t> PeerUid(int fd);

/// Waits until `fd` can be read (or written, or has failed). False at the deadline.
enum class Ready { kRead, kWrite };
bool WaitReady(int fd, Ready what, TimePoint deadline);

/// Sends or receives exactly these bytes. Errors: kUnavailable when the peer is gone, kDeadlineExceeded.
Status SendAll(int fd, std::span<const std::byte> bytes, TimePoint deadline);
Status RecvAll(int fd, std::span<std::byte> bytes, TimePoint deadline);

constexpr size_t kMaxFrameFds = 250;  // the kernel passes at most 253 (SCM_MAX_FD) in one message

struct Frame {
  uint32_t kind = 0;
  std::string body;
  std::vector<Fd> fds;
};

/// One frame: a header {magic, kind, number of bytes, number of descriptors}, then the body. Descriptors
/// (Unix sockets only) are duplicated into the receiver.
Status SendFrame(int fd, uint32_t kind, std::string_view body, std::span<const int> fds, TimePoint deadline);
/// Errors: those of RecvAll; kDataLoss for what is no frame, or a body of more than `max_body`.
Result<Frame> RecvFrame(int fd, size_t max_body, TimePoint deadline);

}  // namespace cadre::sys
