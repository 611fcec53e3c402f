#pragma once
// Reads of another process's memory over UCX. An *owner* maps memory and lets its port and keys be told; a
// *reader* fetches bytes from there straight to where they are wanted, in one of two ways. *Direct*, where
// both have RDMA: by ucp_get the network cards do it and the owner's processor does not notice. *Asked*,
// elsewhere: an active message asks, one answers, and the owner's thread copies the bytes.
//
// UCX also offers ucp_get without RDMA and lets the owner's thread serve it, but that is not used: UCX (1.13)
// ends the *owner's process* when it finds such a request at the end of a connection that has gone, as a
// reader that is killed leaves it, and it serves whatever address it is asked for. Who asks gets mapped
// memory only.
//
// Readers call at a port of the owner's, as UCX's own clients do. Connections made from addresses of workers
// would do without, but a peer that dies while one is made ends the owner's process there too.
//
// One process has owners or readers. UCX 1.13 waits for the events of all connections that are being made in
// one thread and tells them apart by descriptor: it ends a process in which one side's descriptor becomes the
// other's while an event of it waits (tcp_sockcm_ep.c:416, async.c:643).
//
// What this is not: a way to reach processes that are not trusted. Sizes and bounds are checked, and wild
// keys do not make UCX read past their ends; what its two ends tell each other it does not protect. Between
// two that have RDMA, but none in common, UCX serves ucp_get as said above.
//
// UCX_TLS, UCX_NET_DEVICES and the other variables of UCX hold. Where they are not set, it is network
// transports only, as between hosts (ucx_link.cc), and without RDMA the devices of the addresses given.
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/error.h"

namespace cadre::fabric {

/// What a reader must know of memory that an owner has mapped.
struct MemoryRegion {
  uint64_t address = 0;  ///< in the owner's process
  uint64_t bytes = 0;
  std::string key;  ///< opaque
};

/// Memory that can be read until this object goes.
class MappedMemory {
 public:
  virtual ~MappedMemory() = default;
  virtual const MemoryRegion& region() const = 0;
};

struct RemoteMemoryOptions {
  std::vector<std::string> addresses;  ///< local ones by which the other side is reached; empty: all
  int num_lanes = 1;                   ///< of a reader: connections, each used by one thread at a time
  std::optional<bool> direct = {};  ///< forces one of the two ways, for tests; else by what the machine has
};

/// All functions: any thread.
class MemoryOwner {
 public:
  /// Starts UCX and a thread that serves readers (asleep while there is nothing to do). Errors: kUnsupported
  /// if UCX is not installed or this process has a reader, kUnavailable if it cannot use this machine. Cost:
  /// some ten milliseconds.
  static Result<std::unique_ptr<MemoryOwner>> Create(const RemoteMemoryOptions& options);
  virtual ~MemoryOwner() = default;

  /// Where readers call: a port, in digits.
  virtual const std::string& port() const = 0;
  /// Lets `bytes` bytes at `data` be read; they must stay where they are. With RDMA they are pinned. What is
  /// mapped may outlive the owner, whose end ends all reading. Errors: kInvalidArgument for no bytes,
  /// kResourceExhausted where it cannot be pinned.
  virtual Result<std::unique_ptr<MappedMemory>> Map(const void* data, size_t bytes) = 0;
};

/// When a read is given up.
struct ReadLimits {
  TimePoint deadline = TimePoint::max();
  /// Asked every few milliseconds; an error ends the read. May be empty.
  std::function<Status()> check = {};
};

class MemoryReader {
 public:
  /// Errors and cost: as MemoryOwner::Create; kUnsupported if this process has an owner.
  static Result<std::unique_ptr<MemoryReader>> Create(const RemoteMemoryOptions& options);
  virtual ~MemoryReader() = default;

  /// From now on reads are from these regions of the owner at `host`, a numeric address. Connections to the
  /// one before are closed and what failed is forgotten. Not while others read. Nothing is sent yet.
  virtual void Attach(std::string host, std::string port, std::vector<MemoryRegion> regions) = 0;
  /// Closes all connections; until the next Attach there is nothing to read.
  void Detach() { Attach({}, {}, {}); }
  /// Bytes [offset, offset + to.size()) of a region, which must lie in it (checked). When it returns nothing
  /// writes to `to` any more. Errors: kUnavailable where the owner cannot be reached or has gone, or does not
  /// have the region mapped; kDeadlineExceeded; that of limits.check (up to a second later
  /// while a connection is made). A lane that had one is of no use until
  /// the next Attach. Any thread.
  virtual Status Read(size_t region, uint64_t offset, std::span<std::byte> to, const ReadLimits& limits) = 0;
};

}  // namespace cadre::fabric
