#pragma once
// What the tests of plans and moves share: drawn cases, and the reference algorithm restated for even counts.
#include <rapidcheck.h>

#include <algorithm>
#include <vector>

#include "eplb/placement.h"
#include "eplb/policy.h"

namespace cadre::eplb {

struct PlanCase {
  LoadTable load;
  PolicyInput input;  // without load
  std::vector<ExpertMap> present;

  PolicyInput Input() const {
    PolicyInput with = input;
    with.load = &load;
    return with;
  }
};

inline std::vector<int64_t> DrawLoads(size_t size) {
  const auto zipf = rc::gen::map(rc::gen::inRange<int64_t>(1, 500), [](int64_t i) { return 1000000 / i; });
  const auto small = rc::gen::inRange<int64_t>(0, 4);  // ties
  const auto kind = *rc::gen::inRange(0, 4);
  if (kind == 0) return std::vector<int64_t>(size, 0);
  return *rc::gen::container<std::vector<int64_t>>(size, kind == 1   ? small
                                                         : kind == 2 ? zipf
                                                                     : rc::gen::oneOf(zipf, small));
}

/// A legal map drawn at random: each expert somewhere, the other slots anything.
inline ExpertMap DrawMap(int32_t num_experts, const SlotLayout& layout) {
  std::vector<int32_t> slots(static_cast<size_t>(layout.num_slots));
  for (size_t i = 0; i < slots.size(); ++i)
    slots[i] =
        i < static_cast<size_t>(num_experts) ? static_cast<int32_t>(i) : *rc::gen::inRange(0, num_experts);
  for (size_t i = slots.size(); i > 1; --i) std::swap(slots[i - 1], slots[*rc::gen::inRange<size_t>(0, i)]);
  return *ExpertMap::Create(num_experts, layout, slots, Epoch(1));
}

/// Uneven slots, unequal hosts, groups or none, ranks without slots, loads with ties and zeros.
inline PlanCase DrawCase(bool even) {
  PlanCase drawn;
  const int32_t hosts = *rc::gen::inRange(1, 4);
  const int32_t ranks = even ? hosts * *rc::gen::inRange(1, 4) : *rc::gen::inRange(hosts, hosts + 9);
  const int32_t groups = *rc::gen::elementOf(std::vector<int32_t>{1, 1, 2, 3, 4, 6, 8});
  const int32_t experts = groups * *rc::gen::inRange(1, 9);
  int32_t slots = experts + *rc::gen::inRange(0, 12);
  if (even) slots = (slots + ranks - 1) / ranks * ranks;
  const int32_t layers = *rc::gen::inRange(1, 5);
  drawn.load = LoadTable(layers, experts);
  drawn.input = {.num_groups = groups,
                 .hosts = Hosts::Even(ranks, hosts),
                 .layout = {.num_slots = slots, .num_ranks = ranks}};
  for (int32_t layer = 0; layer < layers; ++layer) {
    const auto load = DrawLoads(static_cast<size_t>(experts));
    std::copy(load.begin(), load.end(), drawn.load.Layer(layer).begin());
    drawn.present.push_back(DrawMap(experts, drawn.input.layout));
  }
  return drawn;
}

}  // namespace cadre::eplb
