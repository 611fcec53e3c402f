#pragma once
// The map that a deployment starts with.
#include "base/error.h"
#include "eplb/expert_map.h"

namespace cadre::eplb {

/// --expert-placement-strategy.
enum class Placement : uint8_t {
  kLinear,      ///< rank 0 holds the first experts, rank 1 the next, ...
  kRoundRobin,  ///< entry j goes to rank j mod ranks
};

/// "linear" or "round_robin"; else kInvalidArgument.
Result<Placement> ParsePlacement(std::string_view name);
const char* PlacementName(Placement placement);

/// The start map, epoch 1. The entries are the experts 0 .. num_experts-1 and then `num_redundant` copies
/// (copy i of expert i mod num_experts); they are laid on the ranks by `placement`. Where the entries do not
/// divide, the first (entries mod ranks) ranks hold one more. Ranks may hold none. Errors: kInvalidArgument
/// for counts below 1 (num_redundant below 0). Source: vLLM's placement (linear, round_robin) and its initial
/// redundant map.
Result<ExpertMap> StartMap(int32_t num_experts, int32_t num_redundant, int32_t num_ranks,
                           Placement placement);

/// The map without expert parallelism: every rank holds a shard of every expert; slot = expert. Epoch 1.
Result<ExpertMap> ShardedMap(int32_t num_experts, int32_t num_ranks);

}  // namespace cadre::eplb
