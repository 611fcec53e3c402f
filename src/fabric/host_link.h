#pragma once
// Messages between hosts. A group of ranks that spans hosts has one *carrier* for each other host: a local
// rank whose port holds a link to the carrier on the other side. The carrier gathers a message straight from
// the local ranks' shared segments; on the other side it is received in place, into a landing zone that all
// ranks of that host map. fabric.h turns its arrival into an ordinary local flag.
//
// Nothing here blocks or owns a thread: the carrier's engine thread moves its links inside every wait
// (HostPort::Progress), or sleeps on all of them at once (HostPort::Sleep). Both directions move in one call,
// so two hosts that send much to each other cannot lock up.
//
// Flow control is the user's protocol (fabric.h): a message is sent only when its place on the other side is
// known to be free. So a link never has to hold back what arrives.
//
// Kinds: plain TCP (tcp_link.cc), UCX (ucx_link.cc), and memory of one process (loop_link.cc, for tests and
// simulation). All three carry the same messages.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "fabric/control.h"

namespace cadre::fabric {

/// A part of a message, in memory that stays as it is until the message has arrived.
struct Piece {
  const std::byte* data = nullptr;
  size_t bytes = 0;
};

struct MessageHead {
  uint32_t channel = 0;
  uint32_t round = 0;
  uint64_t offset = 0;  ///< where in the landing zone it goes
  uint64_t bytes = 0;   ///< of all pieces; may be 0
};

/// Takes what arrives on a link; called from within Progress.
class LinkSink {
 public:
  virtual ~LinkSink() = default;
  /// Where to put the message's bytes. An error breaks the link: the peer does not keep to the protocol.
  virtual Result<std::byte*> Place(const MessageHead& head) = 0;
  /// All bytes are there.
  virtual void Arrived(const MessageHead& head) = 0;
};

class HostLink {
 public:
  virtual ~HostLink() = default;
  HostLink(const HostLink&) = delete;
  HostLink& operator=(const HostLink&) = delete;

  /// Begins to send; what does not go at once goes in later calls of Progress. The span itself is copied, the
  /// pieces' memory is not. Messages of one channel arrive in order.
  virtual void Send(const MessageHead& head, std::span<const Piece> pieces) = 0;
  /// Whether everything given to Send is out of this process's hands.
  virtual bool sent() const = 0;
  /// Fine, or why the link is broken.
  virtual const Status& status() const = 0;

 protected:
  HostLink() = default;
};

/// One link wanted. Both sides must ask for it, with equal keys.
struct LinkRequest {
  std::string peer_address;  ///< of the peer's port
  std::string peer_name;     ///< for errors
  uint64_t key = 0;          ///< secret, unique to the link
  bool active = false;       ///< this side connects; the other one accepts
  LinkSink* sink = nullptr;  ///< must outlive the link
};

/// A rank's way to other hosts, for one thread.
class HostPort {
 public:
  virtual ~HostPort() = default;
  HostPort(const HostPort&) = delete;
  HostPort& operator=(const HostPort&) = delete;

  /// What a peer's port needs to reach this one; opaque.
  virtual std::string address() const = 0;
  /// Makes the links, in the order of the requests. Waits for the peers, which call it too, until the
  /// deadline or an abort. Errors name the peers that did not come. The port must outlive the links.
  virtual Result<std::vector<std::unique_ptr<HostLink>>> Connect(std::span<const LinkRequest> requests,
                                                                 const Control& control,
                                                                 TimePoint deadline) = 0;
  /// Moves whatever can be moved without waiting; whether anything did. About 0.3 us when nothing does.
  virtual bool Progress() = 0;
  /// Sleeps until something can move, the port's waker is signalled or `until`. May return early.
  virtual void Sleep(TimePoint until) = 0;
  /// For the log: "TCP, 2 connections a peer".
  virtual std::string Describe() const = 0;

 protected:
  HostPort() = default;
};

struct PortOptions {
  std::vector<std::string> addresses;  ///< local addresses to be reached at, one a network interface
  int waker = -1;                      ///< event descriptor of the rank (control.h); not owned
  int connections_per_address = 1;     ///< large messages are split over all connections
};

Result<std::shared_ptr<HostPort>> MakeTcpPort(const PortOptions& options);
/// Errors: kUnsupported if UCX is not installed.
Result<std::shared_ptr<HostPort>> MakeUcxPort(const PortOptions& options);
/// "tcp" or "ucx".
Result<std::shared_ptr<HostPort>> MakePort(const std::string& kind, const PortOptions& options);

/// Whether the machine has an RDMA device.
bool HasRdma();
/// The kinds of links that this machine can make, the best one first: UCX where there is RDMA; else plain
/// TCP, which beats UCX's TCP (fabric/link_bench.cc measures both).
std::vector<std::string> LinkKinds();

}  // namespace cadre::fabric
