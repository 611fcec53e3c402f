#pragma once
// What one exchange needs between the ranks of a group: every rank has a segment that it alone writes and all
// ranks of its host read in place, and flags that say how far it is.
//
// A flag is one 64-bit word (round << 32 | count), written by its owner only. Rounds rise by one for ever and
// are compared modulo 2^32 (they wrap within days), so flags are never cleared. What a rank wrote before
// Publish is visible to whoever has awaited that round. When a part may be written again is the protocol's
// business: the user of a Fabric alternates parity sets, or knows from a later flag that all peers are done
// with it.
//
// Waiting: a short spin (only if threads do not outnumber CPUs), then a shared futex. The sleeper says so
// before its last look, the publisher looks for sleepers after its store, all seq_cst: no wake is lost. Every
// wait polls the abort word and its deadline; at the deadline it names who is missing and aborts the group,
// because a rank that gave up has left the protocol.
//
// A group over several hosts. The members of one host are neighbours in the group's order. Between two hosts
// goes one message a round and channel. On each side one local member carries it (host h's by the member
// h mod n): it gathers the message from its host's segments and Posts it; on the other side the carrier
// receives it into its *landing zone* for that host, which lies behind its segment, so all ranks there read
// it in place; then it raises a flag of its own (round, number of bytes). So all waits are waits on flags of
// one's own host, and only carriers see the network: they move it inside every wait, see host_link.h.
// A landing place may be written again by the same rule as a segment's part. It needs no further set: a
// message of the next round comes from ranks that have awaited this host's previous message, which was sent
// when all members here were done with what they had read before. An exchange of one message a round
// therefore alternates two places, as it alternates two sets of its segment; one with two (there and back)
// needs one place for each.
//
// Ranks as threads of one process use the same code on plain memory; hosts may be groups of threads.
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "fabric/control.h"
#include "fabric/host_link.h"
#include "fabric/host_table.h"
#include "sys/memory.h"
#include "sys/threads.h"

namespace cadre::fabric {

struct alignas(64) FlagLine {
  std::atomic<uint64_t> word;      ///< round << 32 | count
  std::atomic<uint32_t> sleepers;  ///< who may be sleeping on `bell`
  std::atomic<uint32_t> bell;      ///< the futex word: changes when sleepers are woken
  std::atomic<uint64_t> pollers;   ///< carriers that may be asleep in poll (Control::Bit)
};

/// Whether a flag's word has come to `round`.
inline bool Reached(uint64_t word, uint32_t round) {
  return static_cast<int32_t>(static_cast<uint32_t>(word >> 32) - round) >= 0;
}

/// Where and until when somebody waits; for the error.
struct WaitContext {
  const char* what = "";  ///< "dispatch", "combine"
  int64_t step = 0;
  TimePoint deadline = TimePoint::max();
};

struct FabricSpec {
  std::string name = {};        ///< one Open per name and group
  std::vector<int> ranks = {};  ///< world ranks in the group's order, same on all; empty: all ranks
  size_t segment_bytes = 0;     ///< of every rank's segment
  int num_flags = 0;            ///< flags that each rank owns
  uint32_t first_round = 1;     ///< the first round that will be published
  bool spin = true;
  // For groups that span hosts; without meaning on one host.
  int num_channels = 0;              ///< kinds of messages between two hosts
  size_t landing_bytes = 0;          ///< of each landing zone
  std::optional<uint8_t> fill = {};  ///< tests: what segments and landing zones hold at first; else zeros
};

/// Members [begin, begin + count) of a group.
struct MemberRange {
  int begin = 0, count = 0;
};

/// How a group lies over hosts.
struct GroupHosts {
  std::vector<HostEntry> entries;    ///< the hosts that have members, in the group's order
  std::vector<MemberRange> members;  ///< theirs
  int own = 0;                       ///< this rank's host

  /// Errors: kInvalidArgument for ranks that no host has, or that are not neighbours.
  static Result<GroupHosts> Of(const HostTable& table, const std::vector<int>& ranks, int own_rank);
  int size() const { return static_cast<int>(entries.size()); }
  /// The member of host `at` that carries for host `other`.
  int Carrier(int at, int other) const {
    const MemberRange& range = members[static_cast<size_t>(at)];
    return range.begin + other % range.count;
  }
  int HostOf(int member) const;
};

/// A mapped segment, or a view of memory that somebody else keeps.
struct Mapping {
  sys::Region region;
  std::byte* data = nullptr;
};

/// What Rendezvous::Open has put together.
struct FabricParts {
  FabricSpec spec;
  int index = 0;
  Control control;
  bool shared = false;
  GroupHosts hosts;
  std::vector<Mapping> data, flags;  ///< of each member of this host, null for others; peers' data read-only
  std::shared_ptr<HostPort> port;    ///< if this rank carries for a host
};

class Fabric {
 public:
  /// Used by Rendezvous::Open.
  explicit Fabric(FabricParts parts);
  /// Sends what is still queued, for a second at most.
  ~Fabric();
  Fabric(const Fabric&) = delete;
  Fabric& operator=(const Fabric&) = delete;

  /// Bytes that a member's segment and flags take in all.
  static size_t SegmentBytes(const FabricSpec& spec, const GroupHosts& hosts, int member);
  static size_t FlagBytes(const FabricSpec& spec, const GroupHosts& hosts);

  int rank() const { return index_; }  ///< this rank's position in the group
  int size() const { return static_cast<int>(data_.size()); }
  int world_rank(int r) const { return spec_.ranks[static_cast<size_t>(r)]; }
  Control& control() { return control_; }

  const GroupHosts& hosts() const { return hosts_; }
  int num_hosts() const { return hosts_.size(); }
  int own_host() const { return hosts_.own; }
  /// The members of this host.
  MemberRange local() const { return hosts_.members[static_cast<size_t>(hosts_.own)]; }
  MemberRange members(int host) const { return hosts_.members[static_cast<size_t>(host)]; }

  std::byte* own() const { return data_[static_cast<size_t>(index_)].data; }
  /// Of a member of this host.
  const std::byte* peer(int r) const { return data_[static_cast<size_t>(r)].data; }
  /// What came from another host.
  const std::byte* landing(int host) const;

  /// Sets one of this rank's flags and wakes who sleeps on it. About 20 ns, a system call more if somebody
  /// sleeps.
  void Publish(int flag, uint32_t round, uint32_t count);

  /// Waits until member `r` (of this host) has published `round` or a later one; the count it published.
  Result<uint32_t> Await(int r, int flag, uint32_t round, const WaitContext& context);
  /// The same for all members of this host, this one included; counts [size], of which those of other hosts
  /// are left alone, or null.
  Status AwaitAll(int flag, uint32_t round, uint32_t* counts, const WaitContext& context);

  /// Without waiting: whether member `r` (of this host) has published `round` or a later one, and its count.
  std::optional<uint32_t> Peek(int r, int flag, uint32_t round) const;

  /// Whether this rank sends this host's messages to `host`.
  bool carries(int host) const { return host != hosts_.own && hosts_.Carrier(hosts_.own, host) == index_; }
  /// Sends a message (at most 4 GiB) to another host's landing zone, at `offset`. Carrier only. Does not
  /// wait; the pieces' memory must not change before that host has answered.
  void Post(int host, int channel, uint32_t round, size_t offset, std::span<const Piece> pieces);
  /// Whether it sends any.
  bool carries_any() const;
  /// Waits for another host's message; the number of its bytes, which lie in landing(host).
  Result<uint32_t> AwaitHost(int host, int channel, uint32_t round, const WaitContext& context);
  /// Whether it has come already; does not wait.
  bool HostArrived(int host, int channel, uint32_t round) const;

  /// Puts together what goes to `host`.
  using Gather = sys::FunctionRef<void(int host, std::vector<Piece>& pieces)>;
  /// Carriers Post what `gather` gives them. Call it after AwaitAll of what is sent. Does not wait.
  void PostAll(int channel, uint32_t round, size_t offset, Gather gather);
  /// Waits for the messages of all other hosts, carriers also until what they have posted has gone. bytes
  /// [num_hosts] or null; the own one's is left alone.
  Status AwaitHosts(int channel, uint32_t round, uint32_t* bytes, const WaitContext& context);
  /// Both: one round with all other hosts.
  Status Trade(int channel, uint32_t round, size_t offset, uint32_t* bytes, const WaitContext& context,
               Gather gather);

  /// Moves this rank's messages, if it carries any; for use within long computations.
  void Progress() {
    if (port_ != nullptr) port_->Progress();
  }
  /// Sleeps until the doorbell has rung after `ticket` (Control::AwaitRing) or, on carriers, the message of a
  /// host has come, which rings the doorbell for the others here.
  Result<bool> AwaitRingOrHost(uint32_t ticket, int channel, uint32_t round, TimePoint deadline);

 private:
  friend class Rendezvous;
  struct Carried;

  FlagLine& Line(int r, int flag) const {
    return reinterpret_cast<FlagLine*>(flags_[static_cast<size_t>(r)].data)[flag];
  }
  FlagLine& HostLine(int host, int channel) const {
    return Line(hosts_.Carrier(hosts_.own, host), spec_.num_flags + host * spec_.num_channels + channel);
  }
  size_t LandingOffset(int host) const;
  /// Makes the links; `parcels` came from Open's exchange.
  Status Connect(std::span<const std::string> addresses, std::span<const uint64_t> keys, TimePoint deadline);
  void Raise(FlagLine& line, uint32_t round, uint32_t count);
  Status AwaitLine(FlagLine& line, uint32_t round, TimePoint deadline, int host);
  void SleepOn(FlagLine& line, uint32_t bell, TimePoint until);
  Status CheckLink(int host);
  bool AllSent() const;
  Status Flush(const WaitContext& context);
  Status FailMissing(int flag, uint32_t round, std::span<const int> members, Duration waited,
                     const WaitContext& context);
  Status FailMissingHost(int host, int channel, uint32_t round, Duration waited, const WaitContext& context);
  Status Blame(int rank, Code code, const std::string& text);

  FabricSpec spec_;
  int index_;
  Control control_;
  bool shared_;
  GroupHosts hosts_;
  std::vector<Mapping> data_, flags_;
  std::shared_ptr<HostPort> port_;
  std::vector<std::unique_ptr<Carried>> carried_;  // by host; null where this rank carries nothing
};

/// "rank 2", "ranks 1 and 3", "ranks 1, 2 and 5".
std::string NameRanks(std::span<const int> world_ranks);
/// "0.2", "5", "120", without the unit.
std::string SecondsText(Duration duration);

}  // namespace cadre::fabric
