#include "eplb/policy.h"

#include <algorithm>

#include "base/check.h"
#include "base/format.h"
#include "eplb/hash.h"
#include "eplb/policies.h"

namespace cadre::eplb {
namespace {

constexpr auto kBad = Code::kInvalidArgument;

// A plan must take at least this share off the busiest rank. Less is the window's noise (a rank's sum of 100,000 choices
// varies by 0.3 %), and experts would move for it at every rebalance.
constexpr double kLeastGain = 0.01;

const Policy* const kPolicies[] = {DefaultPolicy()};

Status CheckHosts(const Hosts& hosts, int32_t num_ranks) {
  if (hosts.of_rank.size() != static_cast<size_t>(num_ranks))
    return Fail(kBad, "a plan for {} ranks was told the hosts of {}", num_ranks, hosts.of_rank.size());
  int32_t before = 0;
  for (size_t rank = 0; rank < hosts.of_rank.size(); ++rank) {
    const int32_t host = hosts.of_rank[rank];
    if (host != before && (rank == 0 || host != before + 1))
      return Fail(kBad, "rank {} of a plan is on host {} after host {}; hosts hold runs of ranks", rank, host,
                  before);
    before = host;
  }
  return {};
}

Status CheckInput(const PolicyInput& input, std::span<const ExpertMap> present) {
  const LoadTable& load = *input.load;
  const SlotLayout& layout = input.layout;
  if (load.num_experts < 1 || input.num_groups < 1 || layout.num_ranks < 1)
    return Fail(kBad, "a plan needs experts, groups and ranks; got {}, {} and {}", load.num_experts,
                input.num_groups, layout.num_ranks);
  if (layout.sharded || layout.num_slots < load.num_experts)
    return Fail(kBad, "a plan for {} experts has {}{} slots; each expert needs a whole one", load.num_experts,
                layout.num_slots, layout.sharded ? " sharded" : "");
  if (load.counts.size() != static_cast<size_t>(load.num_layers) * static_cast<size_t>(load.num_experts))
    return Fail(kBad, "a load of {} layers with {} experts has {} counts", load.num_layers, load.num_experts,
                load.counts.size());
  if (std::any_of(load.counts.begin(), load.counts.end(), [](int64_t count) { return count < 0; }))
    return Fail(kBad, "a load has negative counts");
  CADRE_TRY(CheckHosts(input.hosts, layout.num_ranks));
  if (present.size() != static_cast<size_t>(load.num_layers))
    return Fail(kBad, "a plan for {} layers was given {} present maps", load.num_layers, present.size());
  for (const ExpertMap& map : present) {
    if (map.layout() != layout || map.num_experts() != load.num_experts)
      return Fail(
          kBad, "a present map of {} experts in {} slots on {} ranks does not fit a plan for {} in {} on {}",
          map.num_experts(), map.layout().num_slots, map.layout().num_ranks, load.num_experts,
          layout.num_slots, layout.num_ranks);
  }
  return {};
}

double Largest(const std::vector<double>& loads) {
  return *std::max_element(loads.begin(), loads.end());
}

}  // namespace

Hosts Hosts::Even(int32_t num_ranks, int32_t num_hosts) {
  CADRE_CHECK(num_ranks >= 0 && num_hosts >= 1);
  const SlotLayout ranks{.num_slots = num_ranks, .num_ranks = num_hosts};
  Hosts hosts;
  for (int32_t rank = 0; rank < num_ranks; ++rank) hosts.of_rank.push_back(ranks.RankOf(rank));
  return hosts;
}

int32_t Hosts::RanksEach() const {
  if (of_rank.empty() || of_rank.size() % static_cast<size_t>(count()) != 0) return 0;
  const auto each = static_cast<int32_t>(of_rank.size()) / count();
  for (size_t rank = 0; rank < of_rank.size(); ++rank) {
    if (of_rank[rank] != static_cast<int32_t>(rank) / each) return 0;
  }
  return each;
}

Result<const Policy*> FindPolicy(std::string_view name) {
  std::string names;
  for (const Policy* policy : kPolicies) {
    if (policy->name() == name) return policy;
    names += (names.empty() ? "" : ", ") + std::string(policy->name());
  }
  return FailParam(kBad, "--eplb-config.policy", "no balancing policy '{}'; there is: {}", Excerpt(name),
                   names);
}

std::vector<std::string_view> PolicyNames() {
  std::vector<std::string_view> names;
  for (const Policy* policy : kPolicies) names.push_back(policy->name());
  return names;
}

bool Plan::changed() const {
  return std::any_of(layers.begin(), layers.end(), [](const LayerPlan& layer) { return layer.changed; });
}

uint64_t Plan::Hash() const {
  Fnv hash;
  hash.Add(int64_t{num_experts});
  hash.Add(int64_t{layout.num_ranks});
  for (const LayerPlan& layer : layers) hash.Add(layer.slot_to_expert);
  return hash.value();
}

Result<Plan> MakePlan(const Policy& policy, const PolicyInput& input, std::span<const ExpertMap> present) {
  CADRE_TRY(CheckInput(input, present));
  Plan plan{.layout = input.layout, .num_experts = input.load->num_experts, .layers = {}};
  for (int32_t layer = 0; layer < input.load->num_layers; ++layer) {
    const std::span<const int64_t> load = input.load->Layer(layer);
    const ExpertMap& now = present[static_cast<size_t>(layer)];
    std::vector<int32_t> target =
        KeepSlots(input.layout, now.slot_to_expert(), policy.PlaceLayer(input, load));
    LayerPlan planned;
    planned.present_max = Largest(RankLoads(now, load));
    planned.planned_max = Largest(RankLoads(input.layout, target, load));
    planned.changed = planned.planned_max < planned.present_max * (1 - kLeastGain);
    if (!planned.changed) {
      planned.planned_max = planned.present_max;
      target.assign(now.slot_to_expert().begin(), now.slot_to_expert().end());
    }
    planned.slot_to_expert = std::move(target);
    plan.layers.push_back(std::move(planned));
  }
  return plan;
}

std::vector<int32_t> KeepSlots(const SlotLayout& layout, std::span<const int32_t> present,
                               std::span<const int32_t> target) {
  CADRE_CHECK(present.size() == target.size() && !layout.sharded);
  std::vector<int32_t> kept(target.size(), -1);
  for (int32_t rank = 0; rank < layout.num_ranks; ++rank) {
    const auto begin = static_cast<size_t>(layout.Begin(rank)),
               end = static_cast<size_t>(layout.Begin(rank + 1));
    std::vector<int32_t> incoming(target.begin() + layout.Begin(rank),
                                  target.begin() + layout.Begin(rank + 1));
    for (size_t slot = begin; slot < end; ++slot) {
      const auto found = std::find(incoming.begin(), incoming.end(), present[slot]);
      if (found == incoming.end()) continue;
      kept[slot] = *found;
      incoming.erase(found);
    }
    auto next = incoming.begin();
    for (size_t slot = begin; slot < end; ++slot) {
      if (kept[slot] < 0) kept[slot] = *next++;
    }
  }
  return kept;
}

bool SlotsAreKept(const SlotLayout& layout, std::span<const int32_t> present,
                  std::span<const int32_t> target) {
  CADRE_CHECK(present.size() == target.size() && !layout.sharded);
  for (int32_t rank = 0; rank < layout.num_ranks; ++rank) {
    std::vector<int32_t> lost;
    const auto begin = static_cast<size_t>(layout.Begin(rank)),
               end = begin + static_cast<size_t>(layout.Count(rank));
    for (size_t slot = begin; slot < end; ++slot) {
      if (target[slot] != present[slot]) lost.push_back(present[slot]);
    }
    for (size_t slot = begin; slot < end; ++slot) {
      if (target[slot] != present[slot] && std::find(lost.begin(), lost.end(), target[slot]) != lost.end())
        return false;
    }
  }
  return true;
}

Result<std::vector<ExpertMap>> MapsOf(const Plan& plan, Epoch epoch) {
  std::vector<ExpertMap> maps;
  for (const LayerPlan& layer : plan.layers) {
    CADRE_ASSIGN(auto map, ExpertMap::Create(plan.num_experts, plan.layout, layer.slot_to_expert, epoch));
    maps.push_back(std::move(map));
  }
  return maps;
}

}  // namespace cadre::eplb
