#include "eplb/policy.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <numeric>

#include "eplb/policy_testing.h"

namespace cadre::eplb {
namespace {

using Ints = std::vector<int32_t>;
using Loads = std::vector<int64_t>;

const Policy& Default() {
  return **FindPolicy("default");
}

Ints Place(int32_t slots, int32_t groups, int32_t hosts, int32_t ranks, const Loads& load) {
  const PolicyInput input{.num_groups = groups,
                          .hosts = Hosts::Even(ranks, hosts),
                          .layout = {.num_slots = slots, .num_ranks = ranks}};
  return Default().PlaceLayer(input, load);
}

// The cases of vLLM's tests/distributed/test_eplb_algo.py. Where its answer depends on ties, the answer of
// stable sorts with the lowest index first; the maximum is the same for all answers.
TEST(DefaultPolicy, EqualsVllmsCases) {
  const Loads first = {90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86};
  const Loads second = {20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27};
  struct Case {
    int32_t slots, groups, hosts, ranks;
    Loads load;
    Ints want;
    double max;
  };
  const Case cases[] = {
      {16, 4, 2, 8, first, {5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1}, 156},
      {16, 4, 2, 8, second, {7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1}, 179.5},
      {16, 1, 1, 8, first, {10, 6, 10, 7, 0, 2, 11, 4, 5, 9, 5, 4, 8, 3, 1, 1}, 138.5},
      {16, 1, 1, 8, second, {1, 10, 2, 4, 5, 11, 5, 0, 6, 7, 6, 3, 8, 8, 9, 7}, 172},
      {4, 1, 1, 1, {10, 20, 30, 40}, {3, 2, 1, 0}, 100},
      {8, 2, 2, 4, {10, 20, 30, 40, 50, 60}, {1, 0, 2, 2, 4, 5, 3, 5}, 80},
      {8, 2, 2, 4, {60, 50, 40, 30, 20, 10}, {1, 0, 2, 0, 4, 5, 3, 3}, 80},
      {8, 3, 2, 4, {10, 20, 30, 40}, {2, 1, 2, 1, 3, 3, 3, 0}, 26.0 + 2.0 / 3},
      {12, 4, 2, 4, {100, 50, 200, 75, 150, 25, 300, 80}, {6, 6, 7, 0, 6, 1, 2, 3, 4, 2, 4, 5}, 280},
      {8, 3, 2, 4, {10, 20, 30, 40, 50, 60}, {3, 0, 2, 4, 5, 4, 5, 1}, 55},
      {6, 2, 1, 2, {10, 20, 30, 40}, {3, 3, 0, 1, 2, 2}, 50},
      {24,
       8,
       4,
       8,
       {50, 100, 75, 120, 90, 60, 80, 110, 40, 70, 95, 85, 65, 55, 45, 35},
       {3, 14, 15, 3, 2, 2, 9, 6, 8, 7, 7, 6, 12, 10, 11, 13, 10, 11, 5, 1, 4, 0, 1, 4},
       155},
      {10, 3, 1, 2, {200, 150, 100, 50, 25, 12}, {1, 0, 0, 2, 5, 1, 0, 2, 3, 4}, 270.0 + 1.0 / 3},
      {10, 3, 1, 2, {12, 25, 50, 100, 150, 200}, {4, 5, 5, 3, 0, 4, 5, 2, 3, 1}, 270.0 + 1.0 / 3},
  };
  for (const Case& c : cases) {
    const Ints slots = Place(c.slots, c.groups, c.hosts, c.ranks, c.load);
    EXPECT_EQ(slots, c.want);
    const auto loads = RankLoads({.num_slots = c.slots, .num_ranks = c.ranks}, slots, c.load);
    EXPECT_NEAR(*std::max_element(loads.begin(), loads.end()), c.max, 1e-3);
  }
  Ints copies(8);
  for (const int32_t e : Place(12, 2, 2, 4, {1000, 1, 1, 1, 1, 1, 1, 1})) ++copies[static_cast<size_t>(e)];
  EXPECT_EQ(copies, (Ints{3, 1, 1, 1, 2, 2, 1, 1}));
}

TEST(DefaultPolicy, CopiesOfNothingGoRound) {
  Ints slots = Place(10, 1, 1, 2, Loads(8, 0));
  std::sort(slots.begin(), slots.end());
  EXPECT_EQ(slots, (Ints{0, 0, 1, 1, 2, 3, 4, 5, 6, 7}));
}

// The seeds' own 256 + 2 over 8 ranks.
TEST(DefaultPolicy, UnevenSlotsFillTheLargerRanks) {
  Loads load(256);
  for (size_t e = 0; e < load.size(); ++e) load[e] = 1000000 / static_cast<int64_t>(e + 1);
  const Ints slots = Place(258, 8, 1, 8, load);
  const SlotLayout layout{.num_slots = 258, .num_ranks = 8};
  EXPECT_EQ(layout.Count(0), 33);
  EXPECT_EQ(layout.Count(7), 32);
  EXPECT_TRUE(ExpertMap::Create(256, layout, slots, Epoch(1)));
  // The hottest two experts got the copies.
  EXPECT_EQ(std::count(slots.begin(), slots.end(), 0), 3);
}

TEST(Policy, UnknownNamesAreRefusedWithThoseThereAre) {
  const auto missing = FindPolicy("flashlb");
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().param, "--eplb-config.policy");
  EXPECT_EQ(missing.error().message, "no balancing policy 'flashlb'; there is: default");
  EXPECT_EQ(PolicyNames(), (std::vector<std::string_view>{"default"}));
}

// vLLM's tests of preserve_intragpu_slots.
TEST(KeepSlots, EqualsVllm) {
  const auto keep = [](int32_t ranks, const Ints& before, const Ints& after) {
    return KeepSlots({.num_slots = static_cast<int32_t>(before.size()), .num_ranks = ranks}, before, after);
  };
  EXPECT_EQ(keep(2, {0, 1, 2, 3, 4, 5, 6, 7}, {1, 5, 0, 4, 6, 2, 7, 3}), (Ints{0, 1, 5, 4, 2, 3, 6, 7}));
  EXPECT_EQ(keep(2, {0, 1, 0, 2, 3, 4, 5, 6, 1, 2}, {0, 5, 4, 0, 1, 6, 2, 3, 2, 1}),
            (Ints{0, 1, 0, 5, 4, 3, 2, 6, 1, 2}));
  EXPECT_EQ(keep(3, {0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3}, {0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 0}),
            (Ints{0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3}));
}

// A second writing of the algorithm for equal counts on equal hosts, from its description, indices and all:
// each step over whole arrays, as the original does it.
struct Twin {
  static void Pack(const std::vector<double>& w, size_t bins, Ints& bin, Ints& pos) {
    const size_t room = w.size() / bins;
    bin.assign(w.size(), 0);
    pos.assign(w.size(), 0);
    if (room == 1) {
      std::iota(bin.begin(), bin.end(), 0);
      return;
    }
    std::vector<std::pair<double, size_t>> order;
    for (size_t i = 0; i < w.size(); ++i) order.push_back({-w[i], i});
    std::sort(order.begin(), order.end());
    std::vector<std::vector<double>> in(bins);
    for (const auto& [weight, i] : order) {
      size_t best = bins;
      double least = 0;
      for (size_t b = 0; b < bins; ++b) {
        const double sum = std::accumulate(in[b].begin(), in[b].end(), 0.0);
        if (in[b].size() < room && (best == bins || sum < least)) best = b, least = sum;
      }
      bin[i] = static_cast<int32_t>(best);
      pos[i] = static_cast<int32_t>(in[best].size());
      in[best].push_back(w[i]);
    }
  }

  static Ints Place(int32_t slots, int32_t groups, int32_t hosts, int32_t ranks, const Loads& load) {
    if (groups % hosts != 0) groups = hosts = 1;
    const auto G = static_cast<size_t>(groups), N = static_cast<size_t>(hosts), L = load.size();
    std::vector<double> group_load(G);
    for (size_t e = 0; e < L; ++e) group_load[e / (L / G)] += static_cast<double>(load[e]);
    Ints host_of, pos_of;
    Pack(group_load, N, host_of, pos_of);
    std::vector<Ints> of_host(N, Ints(L / N));
    for (size_t e = 0; e < L; ++e) {
      const size_t g = e / (L / G);
      of_host[static_cast<size_t>(host_of[g])][static_cast<size_t>(pos_of[g]) * (L / G) + e % (L / G)] =
          static_cast<int32_t>(e);
    }
    Ints result;
    for (const Ints& experts : of_host) {
      Ints copy_of(experts.size()), count(experts.size(), 1);
      std::iota(copy_of.begin(), copy_of.end(), 0);
      while (copy_of.size() < static_cast<size_t>(slots) / N) {
        const auto share = [&](int32_t i) {
          const auto at = static_cast<size_t>(i);
          return static_cast<double>(load[static_cast<size_t>(experts[at])]) / count[at];
        };
        int32_t most = 0;
        for (int32_t i = 1; i < static_cast<int32_t>(experts.size()); ++i) {
          if (share(i) > share(most)) most = i;
        }
        ++count[static_cast<size_t>(most)];
        copy_of.push_back(most);
      }
      std::vector<double> w;
      for (const int32_t i : copy_of) {
        const auto at = static_cast<size_t>(i);
        w.push_back(static_cast<double>(load[static_cast<size_t>(experts[at])]) / count[at]);
      }
      Ints rank_of, index_of;
      Pack(w, static_cast<size_t>(ranks) / N, rank_of, index_of);
      Ints of_slots(w.size());
      for (size_t c = 0; c < w.size(); ++c) {
        const auto slot = static_cast<size_t>(rank_of[c] * (slots / ranks) + index_of[c]);
        of_slots[slot] = experts[static_cast<size_t>(copy_of[c])];
      }
      result.insert(result.end(), of_slots.begin(), of_slots.end());
    }
    return result;
  }
};

RC_GTEST_PROP(DefaultPolicy, EqualsItsTwinOnEvenCounts, ()) {
  PlanCase drawn = DrawCase(/*even=*/true);
  for (int64_t& count : drawn.load.counts) count += 1;  // without load the rule is our own
  const PolicyInput input = drawn.Input();
  for (int32_t layer = 0; layer < drawn.load.num_layers; ++layer) {
    const auto load = drawn.load.Layer(layer);
    RC_ASSERT(Default().PlaceLayer(input, load) == Twin::Place(input.layout.num_slots, input.num_groups,
                                                               input.hosts.count(), input.layout.num_ranks,
                                                               Loads(load.begin(), load.end())));
  }
}

double LargestOf(const SlotLayout& layout, const Ints& slots, std::span<const int64_t> load) {
  const auto loads = RankLoads(layout, slots, load);
  return *std::max_element(loads.begin(), loads.end());
}

RC_GTEST_PROP(MakePlan, IsLegalBetterAndTheSameEverywhere, ()) {
  const PlanCase drawn = DrawCase(*rc::gen::arbitrary<bool>());
  const SlotLayout& layout = drawn.input.layout;
  const auto plan = MakePlan(Default(), drawn.Input(), drawn.present);
  RC_ASSERT(plan.has_value());
  RC_ASSERT(MapsOf(*plan, Epoch(2)).has_value());  // every expert has a copy
  RC_ASSERT(MakePlan(Default(), drawn.Input(), drawn.present)->Hash() == plan->Hash());
  bool changed = false;
  for (size_t l = 0; l < plan->layers.size(); ++l) {
    const LayerPlan& layer = plan->layers[l];
    const auto load = drawn.load.Layer(static_cast<int32_t>(l));
    const auto now = drawn.present[l].slot_to_expert();
    const double before = LargestOf(layout, Ints(now.begin(), now.end()), load);
    const double after = LargestOf(layout, layer.slot_to_expert, load);
    RC_ASSERT(layer.present_max == before);
    changed |= layer.changed;
    if (layer.changed) {
      RC_ASSERT(after < before);
      RC_ASSERT(layer.planned_max == after);
      // The ranks hold what the policy says, in an order that leaves what stays.
      const Ints raw = Default().PlaceLayer(drawn.Input(), load);
      RC_ASSERT(layer.slot_to_expert == KeepSlots(layout, now, raw));
    } else {
      RC_ASSERT(std::equal(now.begin(), now.end(), layer.slot_to_expert.begin()));
    }
  }
  RC_ASSERT(plan->changed() == changed);
}

RC_GTEST_PROP(KeepSlots, ChangesOnlyTheOrderWithinARank, ()) {
  const PlanCase drawn = DrawCase(false);
  const SlotLayout& layout = drawn.input.layout;
  const auto now = drawn.present[0].slot_to_expert();
  const ExpertMap other = DrawMap(drawn.load.num_experts, layout);
  const auto target = other.slot_to_expert();
  const Ints kept = KeepSlots(layout, now, target);
  for (int32_t rank = 0; rank < layout.num_ranks; ++rank) {
    const auto part = [&](std::span<const int32_t> all) {
      const auto own =
          all.subspan(static_cast<size_t>(layout.Begin(rank)), static_cast<size_t>(layout.Count(rank)));
      return Ints(own.begin(), own.end());
    };
    Ints mine = part(kept), theirs = part(target), lost, gained;
    const Ints before = part(now);
    for (size_t i = 0; i < mine.size(); ++i) {
      if (mine[i] == before[i]) continue;
      lost.push_back(before[i]);
      gained.push_back(mine[i]);
    }
    for (const int32_t e : gained) RC_ASSERT(std::count(lost.begin(), lost.end(), e) == 0);
    std::sort(mine.begin(), mine.end());
    std::sort(theirs.begin(), theirs.end());
    RC_ASSERT(mine == theirs);
  }
  RC_ASSERT(SlotsAreKept(layout, now, kept));
}

TEST(MakePlan, KeepsMapsThatItCannotBetter) {
  const SlotLayout layout{.num_slots = 4, .num_ranks = 2};
  LoadTable load(3, 4);
  load.counts = {9, 1, 9, 1,  // both ranks carry 10
                 0, 0, 0, 0,  // nothing known
                 9, 9, 1, 1};
  const std::vector<ExpertMap> present(3, *StartMap(4, 0, 2, Placement::kLinear));
  const auto plan =
      MakePlan(Default(), {.load = &load, .hosts = Hosts::Even(2, 1), .layout = layout}, present);
  ASSERT_TRUE(plan);
  EXPECT_FALSE(plan->layers[0].changed);
  EXPECT_FALSE(plan->layers[1].changed);
  EXPECT_TRUE(plan->layers[2].changed);
  EXPECT_EQ(plan->layers[2].present_max, 18);
  EXPECT_EQ(plan->layers[2].planned_max, 10);
  // One rank: nothing can be better.
  const std::vector<ExpertMap> alone(3, *StartMap(4, 2, 1, Placement::kLinear));
  EXPECT_FALSE(
      MakePlan(Default(), {.load = &load, .hosts = Hosts::Even(1, 1), .layout = alone[0].layout()}, alone)
          ->changed());
}

TEST(MakePlan, RefusesWhatDoesNotFit) {
  const SlotLayout layout{.num_slots = 4, .num_ranks = 2};
  LoadTable load(1, 4);
  const std::vector<ExpertMap> present(1, *StartMap(4, 0, 2, Placement::kLinear));
  const PolicyInput good{.load = &load, .hosts = Hosts::Even(2, 1), .layout = layout};
  ASSERT_TRUE(MakePlan(Default(), good, present));
  const auto error = [&](PolicyInput input, std::span<const ExpertMap> maps) {
    const auto plan = MakePlan(Default(), input, maps);
    return plan ? std::string("none") : plan.error().message;
  };
  EXPECT_NE(error(good, {}).find("0 present maps"), std::string::npos);
  PolicyInput bad = good;
  bad.hosts = Hosts::Even(3, 1);
  EXPECT_NE(error(bad, present).find("hosts of 3"), std::string::npos);
  bad.hosts.of_rank = {0, 2};
  EXPECT_NE(error(bad, present).find("runs of ranks"), std::string::npos);
  bad = good;
  bad.num_groups = 0;
  EXPECT_NE(error(bad, present), "none");
  bad = good;
  bad.layout.num_slots = 3;
  EXPECT_NE(error(bad, present).find("whole one"), std::string::npos);
  LoadTable negative(1, 4);
  negative.counts[2] = -1;
  bad = good;
  bad.load = &negative;
  EXPECT_NE(error(bad, present).find("negative"), std::string::npos);
  const std::vector<ExpertMap> other(1, *StartMap(4, 2, 2, Placement::kLinear));
  EXPECT_NE(error(good, other).find("does not fit"), std::string::npos);
}

TEST(Hosts, EvenAndUnequal) {
  EXPECT_EQ(Hosts::Even(4, 2).of_rank, (Ints{0, 0, 1, 1}));
  EXPECT_EQ(Hosts::Even(4, 2).RanksEach(), 2);
  EXPECT_EQ(Hosts::Even(5, 2).of_rank, (Ints{0, 0, 0, 1, 1}));
  EXPECT_EQ(Hosts::Even(5, 2).RanksEach(), 0);
  EXPECT_EQ((Hosts{.of_rank = {0, 1, 1, 1}}).RanksEach(), 0);
}

}  // namespace
}  // namespace cadre::eplb
