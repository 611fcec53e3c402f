#include "fabric/host_table.h"

#include "base/format.h"
#include "fabric/control.h"
#include "fabric/wire.h"

namespace cadre::fabric {
HostTable HostTable::OneHost(int num_ranks) {
  HostTable table;
  table.hosts.push_back({.name = {}, .first_rank = 0, .num_ranks = num_ranks, .addresses = {}, .info = {}});
  return table;
}

int HostTable::num_ranks() const {
  return hosts.empty() ? 0 : hosts.back().first_rank + hosts.back().num_ranks;
}

int HostTable::host_of(int rank) const {
  for (size_t h = 0; h < hosts.size(); ++h) {
    if (rank >= hosts[h].first_rank && rank < hosts[h].first_rank + hosts[h].num_ranks) {
      return static_cast<int>(h);
    }
  }
  return -1;
}

void HostTable::Write(WireWriter& to) const {
  to.PutText(link).Put(int32_t{connections}).Put(static_cast<uint32_t>(hosts.size()));
  for (const HostEntry& host : hosts) {
    to.PutText(host.name).Put(int32_t{host.first_rank}).Put(int32_t{host.num_ranks}).PutText(host.info);
    to.Put(static_cast<uint32_t>(host.addresses.size()));
    for (const std::string& address : host.addresses) to.PutText(address);
  }
}

HostTable HostTable::Read(WireReader& from, int own) {
  HostTable table;
  table.own = own;
  table.link = from.GetText();
  table.connections = from.Get<int32_t>();
  const auto num_hosts = from.Get<uint32_t>();
  int next = 0;
  bool good = num_hosts <= static_cast<uint32_t>(kMaxHosts) && own >= -1 && own < static_cast<int>(num_hosts);
  for (uint32_t h = 0; h < num_hosts && good && from.ok(); ++h) {
    HostEntry host;
    host.name = from.GetText();
    host.first_rank = from.Get<int32_t>();
    host.num_ranks = from.Get<int32_t>();
    host.info = from.GetText();
    const auto num_addresses = from.Get<uint32_t>();
    for (uint32_t a = 0; a < num_addresses && from.ok(); ++a) host.addresses.push_back(from.GetText());
    good = host.first_rank == next && host.num_ranks > 0 && host.num_ranks <= kMaxRanksPerHost;
    if (good) next += host.num_ranks;
    table.hosts.push_back(std::move(host));
  }
  if (!good || !from.ok()) table.hosts.clear();
  return table;
}

std::string NameRange(int first_rank, int num_ranks) {
  if (num_ranks == 0) return "no ranks";
  if (num_ranks == 1) return Format("rank {}", first_rank);
  if (num_ranks == 2) return Format("ranks {} and {}", first_rank, int64_t{first_rank} + 1);
  const int64_t last = int64_t{first_rank} + num_ranks - 1;  // a stranger's numbers may be any
  return Format("ranks {} to {}", first_rank, last);
}

std::string NameHost(const HostEntry& host) {
  return Format("host '{}' ({})", host.name, NameRange(host.first_rank, host.num_ranks));
}

}  // namespace cadre::fabric
