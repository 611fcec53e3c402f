#pragma once
// Which ranks lie on which host. A host is one node parent with its ranks: a contiguous range of world ranks
// that share memory. All hosts of a deployment hold the same table; it is made at the join
// (group/host_join.h).
#include <string>
#include <vector>

namespace cadre::fabric {

constexpr int kMaxHosts = 1024;

class WireReader;
class WireWriter;

struct HostEntry {
  std::string name;  ///< for people
  int first_rank = 0, num_ranks = 0;
  std::vector<std::string> addresses;  ///< where its ranks listen for other hosts, one a network interface
  std::string info;  ///< what the host's parent wants the other parents to know; opaque here
};

struct HostTable {
  std::vector<HostEntry> hosts;  ///< by first rank, without gaps
  int own = 0;                   ///< this host
  std::string link;              ///< how hosts reach each other: "tcp", "ucx", "loop"; empty for one host
  int connections = 1;           ///< of a TCP link, for each address

  static HostTable OneHost(int num_ranks);
  int num_ranks() const;
  int num_hosts() const { return static_cast<int>(hosts.size()); }
  /// -1 for a rank that no host has.
  int host_of(int rank) const;
  const HostEntry& own_host() const { return hosts[static_cast<size_t>(own)]; }

  void Write(WireWriter& to) const;
  /// What Write wrote, as seen by host `own` (-1: a process without ranks); no hosts at all if the bytes are
  /// no table.
  static HostTable Read(WireReader& from, int own);
};

/// "host 'b' (ranks 8 to 15)".
std::string NameHost(const HostEntry& host);
/// "rank 3", "ranks 8 to 15", "no ranks".
std::string NameRange(int first_rank, int num_ranks);

}  // namespace cadre::fabric
