#include "eplb/placement.h"

#include <utility>

namespace cadre::eplb {
namespace {

constexpr Epoch kFirstEpoch{1};

}  // namespace

Result<Placement> ParsePlacement(std::string_view name) {
  if (name == "linear") return Placement::kLinear;
  if (name == "round_robin") return Placement::kRoundRobin;
  return FailParam(Code::kInvalidArgument, "--expert-placement-strategy",
                   "expert placement strategy '{}' is unknown; use linear or round_robin", name);
}

const char* PlacementName(Placement placement) {
  return placement == Placement::kLinear ? "linear" : "round_robin";
}

Result<ExpertMap> StartMap(int32_t num_experts, int32_t num_redundant, int32_t num_ranks,
                           Placement placement) {
  if (num_experts < 1 || num_redundant < 0 || num_ranks < 1) {
    return Fail(Code::kInvalidArgument,
                "expert placement needs at least 1 expert, 0 redundant experts and 1 rank; got {}, {} and {}",
                num_experts, num_redundant, num_ranks);
  }
  const SlotLayout layout{.num_slots = num_experts + num_redundant, .num_ranks = num_ranks};
  std::vector<int32_t> slot_to_expert(static_cast<size_t>(layout.num_slots));
  for (int32_t entry = 0; entry < layout.num_slots; ++entry) {
    const int32_t slot =
        placement == Placement::kLinear ? entry : layout.Begin(entry % num_ranks) + entry / num_ranks;
    slot_to_expert[static_cast<size_t>(slot)] =
        entry < num_experts ? entry : (entry - num_experts) % num_experts;
  }
  return ExpertMap::Create(num_experts, layout, std::move(slot_to_expert), kFirstEpoch);
}

Result<ExpertMap> ShardedMap(int32_t num_experts, int32_t num_ranks) {
  std::vector<int32_t> slot_to_expert;
  for (int32_t e = 0; e < num_experts; ++e) slot_to_expert.push_back(e);
  return ExpertMap::Create(num_experts, {.num_slots = num_experts, .num_ranks = num_ranks, .sharded = true},
                           std::move(slot_to_expert), kFirstEpoch);
}

}  // namespace cadre::eplb
