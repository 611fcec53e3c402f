#pragma once
// How ranks find each other's memory, and over hosts each other's ports. A rank holds one Rendezvous;
// everything that ranks share is opened through it by name, together: each call is collective over the ranks
// it names, on whatever hosts, and ends at its deadline with the names of those that did not come, or at once
// if one of them has died.
//
// Two kinds: processes (broker.h: a broker in the parent passes memfds along, and blobs to the brokers of
// other hosts) and threads of one process (loop.h).
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "fabric/fabric.h"
#include "sys/fd.h"

namespace cadre::fabric {

/// What a rank gives to the others, or gets from one of them.
struct Parcel {
  std::string blob;
  std::vector<sys::Fd> fds;
};

class Rendezvous {
 public:
  virtual ~Rendezvous() = default;
  Rendezvous(const Rendezvous&) = delete;
  Rendezvous& operator=(const Rendezvous&) = delete;

  int rank() const { return rank_; }
  int num_ranks() const { return table_.num_ranks(); }
  const HostTable& hosts() const { return table_; }
  /// The ranks of this host.
  std::vector<int> LocalRanks() const;
  Control& control() { return control_; }

  /// Everybody's blob, in the order of `ranks` (empty: all ranks). At most 1 MiB each.
  /// Errors: kDeadlineExceeded and kUnavailable with the ranks at fault.
  Result<std::vector<std::string>> ExchangeBlobs(const std::string& name, const std::vector<int>& ranks,
                                                 const std::string& blob, TimePoint deadline);

  /// Makes and maps the segments and flags of a group. Errors: those of ExchangeBlobs, of memory, and
  /// kInvalidArgument if the ranks disagree about the spec. A spec with other ranks only is a fault of ours.
  Result<std::unique_ptr<Fabric>> Open(const FabricSpec& spec, TimePoint deadline);

  /// One segment for this host, collective over its ranks: `owner`, one of them, gets it writable, all others
  /// read-only. What the owner writes is visible to others only after some later exchange or flag.
  Result<Mapping> Share(const std::string& name, int owner, size_t bytes, TimePoint deadline);

 protected:
  Rendezvous(int rank, HostTable table, Control control, bool shared)
      : rank_(rank), table_(std::move(table)), control_(std::move(control)), shared_(shared) {}

  struct NewSegment {
    Mapping mapping;
    sys::Fd fd;        ///< for processes
    std::string blob;  ///< for threads
  };
  virtual Result<NewSegment> MakeSegment(const std::string& name, size_t bytes, bool peers_write) = 0;
  /// The `part`th of what a peer's MakeSegments gave: descriptors, or pointers one behind the other.
  virtual Result<Mapping> MapPeer(const std::vector<sys::Fd>& fds, const std::string& pointers, size_t part,
                                  size_t bytes, bool write) = 0;
  /// fds are duplicated into the receivers.
  virtual Result<std::vector<Parcel>> Exchange(const std::string& name, const std::vector<int>& ranks,
                                               const std::string& blob, const std::vector<int>& fds,
                                               TimePoint deadline) = 0;

  /// A port of the kind that the table names.
  virtual Result<std::shared_ptr<HostPort>> MakePort();

  std::vector<int> AllRanks() const;
  /// For messages to other hosts, made at the first use.
  Result<std::shared_ptr<HostPort>> Port();
  Result<std::unique_ptr<Fabric>> MapMembers(FabricParts parts, const std::vector<Parcel>& parcels,
                                             NewSegment data, NewSegment flags, TimePoint deadline);

  int rank_;
  HostTable table_;
  Control control_;
  bool shared_;
  std::shared_ptr<HostPort> port_;
};

}  // namespace cadre::fabric
