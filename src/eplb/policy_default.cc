// DeepSeek's balancer. Two greedy steps: copies go, one by one, to the expert with the largest load a copy;
// then copies go, heaviest first, to the emptiest rank that has room. Where the model has expert groups and
// the hosts divide them, it does so within each host, for groups that were first shared out over the hosts,
// so that a row limited to few groups also meets few hosts ("hierarchical"); else over all ranks ("global").
//
// Our additions: ranks may have room for different numbers (slots that do not divide over the ranks); among
// experts without any load the one with the fewest copies gets the next one (the original heaps them all on
// the first expert).
#include <algorithm>
#include <numeric>

#include "eplb/policies.h"

namespace cadre::eplb {
namespace {

struct Packed {
  int32_t bin = 0;
  int32_t index = 0;  // how many came into the bin before
};

// Items to bins: heaviest item first (lower index on ties), into the lightest bin with room (lower index on
// ties). The rooms sum up to the number of items.
std::vector<Packed> PackBalanced(std::span<const double> weights, std::span<const int32_t> rooms) {
  std::vector<Packed> packed(weights.size());
  std::vector<int32_t> order(weights.size());
  std::iota(order.begin(), order.end(), 0);
  // One item a bin: item i stays in bin i, so that a plan does not shuffle for nothing.
  if (std::all_of(rooms.begin(), rooms.end(), [](int32_t room) { return room == 1; })) {
    for (const int32_t i : order) packed[static_cast<size_t>(i)] = {.bin = i};
    return packed;
  }
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return weights[static_cast<size_t>(a)] > weights[static_cast<size_t>(b)];
  });
  std::vector<double> filled(rooms.size());
  std::vector<int32_t> items(rooms.size());
  for (const int32_t item : order) {
    size_t lightest = rooms.size();
    for (size_t bin = 0; bin < rooms.size(); ++bin) {
      if (items[bin] < rooms[bin] && (lightest == rooms.size() || filled[bin] < filled[lightest]))
        lightest = bin;
    }
    packed[static_cast<size_t>(item)] = {.bin = static_cast<int32_t>(lightest), .index = items[lightest]++};
    filled[lightest] += weights[static_cast<size_t>(item)];
  }
  return packed;
}

struct Copies {
  std::vector<int32_t> expert_of;  // by copy; the first ones are one copy of each expert in order
  std::vector<int32_t> count;      // by expert
};

Copies Replicate(std::span<const double> weights, int32_t num_copies) {
  Copies copies;
  copies.count.assign(weights.size(), 1);
  for (int32_t copy = 0; copy < num_copies; ++copy) {
    size_t best = static_cast<size_t>(copy);
    if (best >= weights.size()) {
      best = 0;
      for (size_t e = 1; e < weights.size(); ++e) {
        const double here = weights[e] / copies.count[e], there = weights[best] / copies.count[best];
        if (here > there || (here == 0 && there == 0 && copies.count[e] < copies.count[best])) best = e;
      }
      ++copies.count[best];
    }
    copies.expert_of.push_back(static_cast<int32_t>(best));
  }
  return copies;
}

// Places the experts of one host [ids], whose loads are [weights], on its ranks.
void PlaceOnRanks(const SlotLayout& layout, int32_t first_rank, int32_t num_ranks,
                  std::span<const int32_t> ids, std::span<const double> weights,
                  std::vector<int32_t>& slot_to_expert) {
  const int32_t num_copies = layout.Begin(first_rank + num_ranks) - layout.Begin(first_rank);
  const Copies copies = Replicate(weights, num_copies);
  std::vector<double> loads;
  for (const int32_t e : copies.expert_of)
    loads.push_back(weights[static_cast<size_t>(e)] / copies.count[static_cast<size_t>(e)]);
  std::vector<int32_t> rooms;
  for (int32_t rank = first_rank; rank < first_rank + num_ranks; ++rank) rooms.push_back(layout.Count(rank));
  const std::vector<Packed> packed = PackBalanced(loads, rooms);
  for (size_t copy = 0; copy < packed.size(); ++copy) {
    const int32_t slot = layout.Begin(first_rank + packed[copy].bin) + packed[copy].index;
    slot_to_expert[static_cast<size_t>(slot)] = ids[static_cast<size_t>(copies.expert_of[copy])];
  }
}

struct Division {
  int32_t groups = 1, hosts = 1;
};

// Hosts of unequal size count as one. Groups that hosts, or experts that groups, do not divide: global. With
// uneven slots the last host may have too few for its share of the experts: global, too.
Division DivisionOf(const PolicyInput& input, int32_t num_experts) {
  const int32_t ranks = input.layout.num_ranks;
  const int32_t hosts = input.hosts.RanksEach() > 0 ? input.hosts.count() : 1;
  if (input.num_groups % hosts != 0 || num_experts % input.num_groups != 0) return {};
  const int32_t last_host = input.layout.num_slots - input.layout.Begin(ranks - ranks / hosts);
  if (last_host < num_experts / hosts) return {};
  return {.groups = input.num_groups, .hosts = hosts};
}

class DeepSeekPolicy final : public Policy {
 public:
  std::string_view name() const override { return "default"; }

  std::vector<int32_t> PlaceLayer(const PolicyInput& input, std::span<const int64_t> load) const override {
    const auto num_experts = static_cast<int32_t>(load.size());
    const Division division = DivisionOf(input, num_experts);
    const int32_t group_size = num_experts / division.groups;
    std::vector<double> of_group(static_cast<size_t>(division.groups));
    for (int32_t e = 0; e < num_experts; ++e)
      of_group[static_cast<size_t>(e / group_size)] += static_cast<double>(load[static_cast<size_t>(e)]);
    const int32_t groups_each = division.groups / division.hosts;
    const std::vector<int32_t> rooms(static_cast<size_t>(division.hosts), groups_each);
    const std::vector<Packed> packed = PackBalanced(of_group, rooms);
    // The experts in the order host, group as packed, expert.
    std::vector<int32_t> ids(load.size());
    std::vector<double> weights(load.size());
    for (int32_t e = 0; e < num_experts; ++e) {
      const Packed& group = packed[static_cast<size_t>(e / group_size)];
      const auto at =
          static_cast<size_t>((group.bin * groups_each + group.index) * group_size + e % group_size);
      ids[at] = e;
      weights[at] = static_cast<double>(load[static_cast<size_t>(e)]);
    }
    std::vector<int32_t> slot_to_expert(static_cast<size_t>(input.layout.num_slots));
    const auto experts_each = load.size() / static_cast<size_t>(division.hosts);
    const int32_t ranks_each = input.layout.num_ranks / division.hosts;
    for (int32_t host = 0; host < division.hosts; ++host) {
      const size_t first = static_cast<size_t>(host) * experts_each;
      PlaceOnRanks(input.layout, host * ranks_each, ranks_each, std::span(ids).subspan(first, experts_each),
                   std::span(weights).subspan(first, experts_each), slot_to_expert);
    }
    return slot_to_expert;
  }
};

}  // namespace

const Policy* DefaultPolicy() {
  static const DeepSeekPolicy policy;
  return &policy;
}

}  // namespace cadre::eplb
