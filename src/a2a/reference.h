#pragma once
// The oracle: what an exchange must give, worked out by plain loops over everybody's inputs. Back ends equal
// it bit by bit on their reduction tree.
#include <cstdint>
#include <span>
#include <vector>

#include "eplb/slot_layout.h"
#include "fabric/fabric.h"
#include "sys/threads.h"
#include "tensor/dtype.h"

namespace cadre::a2a {

enum class Tree : uint8_t {
  kByK,     ///< the home rank sums weighted expert rows in rising k
  kByRank,  ///< each rank sums its weighted expert rows in rising k; the home rank adds the partial sums in
            ///< rank order
  kByHost,  ///< as kByRank within each host; the home rank adds the hosts' sums in host order
};

struct ReferenceInput {
  int64_t num_rows = 0;
  const int32_t* slots = nullptr;  ///< [num_rows, top_k]
  const float* weights = nullptr;
};

struct ReferenceArgs {
  int32_t top_k = 0, hidden = 0;
  eplb::SlotLayout layout;
  std::span<const ReferenceInput> ranks;
  Tree tree = Tree::kByRank;
  int32_t ranks_per_host = 0;  ///< for kByHost; 0: all on one
  /// What `rank` computes in `slot` for a source rank's row, before the weight: out [hidden].
  sys::FunctionRef<void(int rank, int32_t slot, int source, int64_t row, float* out)> expert;
};

/// [num_rows, hidden] of `home`. By k, a sharded expert's row is the sum of its shards in rank order, before
/// the weight. Ranks without a choice of a row take no part in its sum; rows without any choice are 0.
std::vector<float> ReferenceCombine(const ReferenceArgs& args, int home);

/// The same for a group over hosts. By k nothing changes. All others sum by host, then rank: each host sums
/// its ranks' partial sums in rank order; what comes from another host than the home rank's is rounded to
/// `wire_type`; the home rank sums the hosts in order.
std::vector<float> ReferenceHostCombine(const ReferenceArgs& args, std::span<const fabric::MemberRange> hosts,
                                        DType wire_type, int home);

}  // namespace cadre::a2a
