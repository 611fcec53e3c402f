#pragma once
#include "a2a/a2a.h"
#include "a2a/counts.h"
#include "a2a/reference.h"
#include "fabric/fabric.h"

namespace cadre::a2a {

/// See allgather_hosts.cc. For groups that span hosts.
Result<std::unique_ptr<AllToAll>> CreateAllGatherHosts(const Options& options,
                                                       const fabric::GroupHosts& hosts);
int64_t AllGatherHostsBytes(const Options& options, const fabric::GroupHosts& hosts);

/// What `rank` draws in one exchange over hosts, by formula; `act_bytes` of a value between hosts. In
/// args.partial_bytes the size of a partial sum in shared memory.
ByteCounts CountHostBytes(const CountArgs& args, const std::vector<fabric::MemberRange>& hosts,
                          int64_t wire_row_bytes, int rank);

/// As ReferenceCombine, by the tree "by host, then rank": each host sums its ranks' partial sums in rank
/// order; what comes from another host than the home rank's is rounded to `wire_type`; the home rank sums the
/// hosts in order.
std::vector<float> ReferenceHostCombine(const ReferenceArgs& args,
                                        const std::vector<fabric::MemberRange>& hosts, DType wire_type,
                                        int home);

}  // namespace cadre::a2a
