#include "eplb/moves.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <map>
#include <set>

#include "eplb/circles.h"
#include "eplb/policy_testing.h"

namespace cadre::eplb {
namespace {

using Ints = std::vector<int32_t>;

// What lies in one place: (layer, expert), or -1 while it is nothing.
using Thing = std::pair<int32_t, int32_t>;
constexpr Thing kNothing{-1, -1};

// (RapidCheck shows what an assertion compares, and would read what an end iterator points to; it also
// evaluates both sides of || and &&.)
bool Contains(std::span<const int32_t> all, int32_t one) {
  return std::find(all.begin(), all.end(), one) != all.end();
}

// The ranks' memories. Carries schedules out as a mover does and checks every promise on the way.
class Memories {
 public:
  Memories(std::span<const ExpertMap> maps, const PlaceTable& table) : table_(table) {
    const SlotLayout& layout = table.layout();
    for (int32_t rank = 0; rank < layout.num_ranks; ++rank)
      ranks_.emplace_back(static_cast<size_t>(table.NumPlaces(rank)), kNothing);
    for (int32_t layer = 0; layer < table.num_layers(); ++layer) {
      maps_.emplace_back(maps[static_cast<size_t>(layer)].slot_to_expert().begin(),
                         maps[static_cast<size_t>(layer)].slot_to_expert().end());
      for (int32_t slot = 0; slot < layout.num_slots; ++slot)
        At(layout.RankOf(slot), table.PlaceOf(layer, slot)) = {layer,
                                                               maps_.back()[static_cast<size_t>(slot)]};
    }
  }

  void Run(const Wave& wave, int32_t num_experts) {
    const SlotLayout& layout = table_.layout();
    std::set<std::pair<int32_t, int32_t>> written;
    for (const Write& write : wave.writes) {
      const auto spares = table_.SparesOf(write.rank);
      RC_ASSERT(Contains(spares, write.place));
      RC_ASSERT(written.insert({write.rank, write.place}).second);
      // Of another rank only what stays as it is until the flip; of the own one also what this wave wrote.
      const auto foreign = table_.SparesOf(write.source_rank);
      if (write.source_rank != write.rank) RC_ASSERT(!Contains(foreign, write.source_place));
      RC_ASSERT(At(write.source_rank, write.source_place) == Thing(write.layer, write.expert));
      At(write.rank, write.place) = {write.layer, write.expert};
    }
    for (size_t i = 0; i < wave.flips.size(); ++i) {
      const Flip& flip = wave.flips[i];
      if (i > 0) RC_ASSERT(wave.flips[i - 1].layer < flip.layer);
      RC_ASSERT(ExpertMap::Create(num_experts, layout, flip.slot_to_expert, Epoch(1)).has_value());
      maps_[static_cast<size_t>(flip.layer)] = flip.slot_to_expert;
    }
    table_.Apply(wave);
    for (int32_t layer = 0; layer < table_.num_layers(); ++layer) {
      for (int32_t slot = 0; slot < layout.num_slots; ++slot)
        RC_ASSERT(At(layout.RankOf(slot), table_.PlaceOf(layer, slot)) ==
                  Thing(layer, maps_[static_cast<size_t>(layer)][static_cast<size_t>(slot)]));
    }
    // What a spare place held is gone for the next wave.
    for (int32_t rank = 0; rank < layout.num_ranks; ++rank) {
      for (const int32_t place : table_.SparesOf(rank)) At(rank, place) = kNothing;
    }
  }

  const std::vector<Ints>& maps() const { return maps_; }
  const PlaceTable& table() const { return table_; }

 private:
  Thing& At(int32_t rank, int32_t place) {
    return ranks_.at(static_cast<size_t>(rank)).at(static_cast<size_t>(place));
  }

  PlaceTable table_;
  std::vector<std::vector<Thing>> ranks_;
  std::vector<Ints> maps_;
};

// What the reference's execution receives: each expert that a rank does not hold, once.
int64_t ReferenceReceives(const SlotLayout& layout, std::span<const int32_t> before,
                          std::span<const int32_t> after) {
  int64_t count = 0;
  for (int32_t rank = 0; rank < layout.num_ranks; ++rank) {
    const auto part = [&](std::span<const int32_t> all) {
      const auto own =
          all.subspan(static_cast<size_t>(layout.Begin(rank)), static_cast<size_t>(layout.Count(rank)));
      return std::set<int32_t>(own.begin(), own.end());
    };
    const auto held = part(before);
    for (const int32_t e : part(after)) count += held.contains(e) ? 0 : 1;
  }
  return count;
}

struct Target {
  Plan plan;
  int64_t receives = 0;  // of the reference
  int64_t changes = 0;   // slots that change
  bool of_policy = false;
};

// A plan to maps drawn at random, or of the policy.
Target DrawTarget(const PlanCase& drawn) {
  Target target;
  if (*rc::gen::arbitrary<bool>()) {
    target.of_policy = true;
    target.plan = *MakePlan(**FindPolicy("default"), drawn.Input(), drawn.present);
  } else {
    target.plan = {.layout = drawn.input.layout, .num_experts = drawn.load.num_experts, .layers = {}};
    for (const ExpertMap& now : drawn.present) {
      const bool same = *rc::gen::inRange(0, 4) == 0;
      const ExpertMap next = same ? now : DrawMap(now.num_experts(), now.layout());
      const auto slots = next.slot_to_expert();
      target.plan.layers.push_back({.slot_to_expert = Ints(slots.begin(), slots.end()), .changed = !same});
    }
  }
  for (size_t l = 0; l < drawn.present.size(); ++l) {
    const auto now = drawn.present[l].slot_to_expert();
    const Ints kept = TargetSlots(drawn.input.layout, now, target.plan.layers[l].slot_to_expert);
    target.receives += ReferenceReceives(drawn.input.layout, now, kept);
    for (size_t slot = 0; slot < kept.size(); ++slot) target.changes += kept[slot] != now[slot];
  }
  return target;
}

RC_GTEST_PROP(MakeSchedule, EveryWaveIsLegalAndNoByteTooMany, ()) {
  const PlanCase drawn = DrawCase(*rc::gen::arbitrary<bool>());
  const Target target = DrawTarget(drawn);
  const SlotLayout& layout = drawn.input.layout;
  const int32_t spares = *rc::gen::inRange(1, 8);
  Memories memories(drawn.present, PlaceTable(drawn.load.num_layers, layout, spares));
  const auto schedule = MakeSchedule(drawn.present, target.plan, memories.table(), drawn.input.hosts);
  RC_ASSERT(schedule.has_value());
  RC_ASSERT(MakeSchedule(drawn.present, target.plan, memories.table(), drawn.input.hosts)->hash ==
            schedule->hash);
  int64_t received = 0, writes = 0, across = 0;
  for (const Wave& wave : schedule->waves) {
    RC_ASSERT(!wave.writes.empty() && !wave.flips.empty());
    memories.Run(wave, drawn.load.num_experts);
    for (const Write& write : wave.writes) {
      ++writes;
      received += write.rank != write.source_rank;
      const auto host = [&](int32_t rank) { return drawn.input.hosts.of_rank[static_cast<size_t>(rank)]; };
      across += host(write.rank) != host(write.source_rank);
    }
  }
  RC_ASSERT(received == target.receives);
  RC_ASSERT(writes == target.changes);
  RC_ASSERT(schedule->num_received == received);
  RC_ASSERT(schedule->num_local == writes - received);
  RC_ASSERT(schedule->num_from_hosts == across);
  for (size_t l = 0; l < drawn.present.size(); ++l) {
    if (target.of_policy) RC_ASSERT(memories.maps()[l] == target.plan.layers[l].slot_to_expert);
    RC_ASSERT(memories.maps()[l] ==
              TargetSlots(layout, drawn.present[l].slot_to_expert(), target.plan.layers[l].slot_to_expert));
  }
  // With room for all, one wave.
  if (spares * 2 > drawn.load.num_layers * 2 * layout.Count(0)) RC_ASSERT(schedule->waves.size() <= 1);
}

// A layer whose moves fit into the spare places is never seen half done.
RC_GTEST_PROP(MakeSchedule, LayersThatFitAreNotTorn, ()) {
  const PlanCase drawn = DrawCase(*rc::gen::arbitrary<bool>());
  const Target target = DrawTarget(drawn);
  const PlaceTable places(drawn.load.num_layers, drawn.input.layout,
                          std::max(drawn.input.layout.Count(0), 1));
  const auto schedule = MakeSchedule(drawn.present, target.plan, places, drawn.input.hosts);
  RC_ASSERT(schedule.has_value());
  std::set<int32_t> flipped;
  for (const Wave& wave : schedule->waves) {
    for (const Flip& flip : wave.flips) RC_ASSERT(flipped.insert(flip.layer).second);
  }
}

// Schedule after schedule on the same places, as a server does it.
RC_GTEST_PROP(MakeSchedule, PlacesStayRightOverManyRebalances, ()) {
  PlanCase drawn = DrawCase(*rc::gen::arbitrary<bool>());
  Memories memories(drawn.present,
                    PlaceTable(drawn.load.num_layers, drawn.input.layout, *rc::gen::inRange(1, 4)));
  for (int round = 0; round < 4; ++round) {
    const Target target = DrawTarget(drawn);
    const auto schedule = MakeSchedule(drawn.present, target.plan, memories.table(), drawn.input.hosts);
    RC_ASSERT(schedule.has_value());
    // The last time it stops half-way, and goes on from there.
    const size_t waves = round == 2 ? schedule->waves.size() / 2 : schedule->waves.size();
    for (size_t w = 0; w < waves; ++w) memories.Run(schedule->waves[w], drawn.load.num_experts);
    for (size_t l = 0; l < drawn.present.size(); ++l)
      drawn.present[l] =
          *ExpertMap::Create(drawn.load.num_experts, drawn.input.layout, memories.maps()[l], Epoch(2));
  }
}

RC_GTEST_PROP(CutIntoCircles, AnySetOfCirclesLeavesALegalMap, ()) {
  const PlanCase drawn = DrawCase(false);
  const SlotLayout& layout = drawn.input.layout;
  const auto now = drawn.present[0].slot_to_expert();
  const ExpertMap next = DrawMap(drawn.load.num_experts, layout);
  const Ints target = TargetSlots(layout, now, next.slot_to_expert());
  const auto circles = CutIntoCircles(layout, drawn.load.num_experts, now, target);
  std::multiset<int32_t> held(now.begin(), now.end());
  std::set<int32_t> gained, lost;
  for (const Circle& circle : circles) {
    std::set<int32_t> ranks;
    const bool taken = *rc::gen::arbitrary<bool>();
    for (const Swap& swap : circle) {
      RC_ASSERT(ranks.insert(swap.rank).second);
      RC_ASSERT(layout.RankOf(swap.gains) == swap.rank && layout.RankOf(swap.loses) == swap.rank);
      RC_ASSERT(gained.insert(swap.gains).second && lost.insert(swap.loses).second);
      if (!taken) continue;
      held.erase(held.find(now[static_cast<size_t>(swap.loses)]));
      held.insert(target[static_cast<size_t>(swap.gains)]);
    }
  }
  for (int32_t e = 0; e < drawn.load.num_experts; ++e) RC_ASSERT(held.contains(e));
  for (size_t slot = 0; slot < target.size(); ++slot) {
    const bool changes = target[slot] != now[slot];
    RC_ASSERT(gained.contains(static_cast<int32_t>(slot)) == changes);
    RC_ASSERT(lost.contains(static_cast<int32_t>(slot)) == changes);
  }
}

RC_GTEST_PROP(LayerMoves, ReachTheTargetFromHoldersNearby, ()) {
  const PlanCase drawn = DrawCase(*rc::gen::arbitrary<bool>());
  const SlotLayout& layout = drawn.input.layout;
  const ExpertMap& now = drawn.present[0];
  const ExpertMap next = DrawMap(now.num_experts(), layout);
  Ints sends(static_cast<size_t>(layout.num_ranks));
  const auto moves = LayerMoves(now, next.slot_to_expert(), drawn.input.hosts, sends);
  const auto host = [&](int32_t rank) { return drawn.input.hosts.of_rank[static_cast<size_t>(rank)]; };
  Ints after(now.slot_to_expert().begin(), now.slot_to_expert().end());
  int64_t received = 0;
  for (size_t i = 0; i < moves.size(); ++i) {
    const Move& move = moves[i];
    const int32_t rank = layout.RankOf(move.slot);
    RC_ASSERT(layout.RankOf(move.source_slot) == move.source_rank);
    if (i > 0) RC_ASSERT(moves[i - 1].slot < move.slot);
    // A local source may be what an earlier move brought.
    RC_ASSERT((move.source_rank == rank
                   ? after
                   : Ints(now.slot_to_expert().begin(),
                          now.slot_to_expert().end()))[static_cast<size_t>(move.source_slot)] == move.expert);
    bool own = false, near = false;
    for (const int32_t slot : now.SlotsOf(LogicalExpert(move.expert))) {
      own |= layout.RankOf(slot) == rank;
      near |= host(layout.RankOf(slot)) == host(rank);
    }
    if (own) RC_ASSERT(move.source_rank == rank);
    if (near) RC_ASSERT(host(move.source_rank) == host(rank));
    received += move.source_rank != rank;
    after[static_cast<size_t>(move.slot)] = move.expert;
  }
  RC_ASSERT(after == TargetSlots(layout, now.slot_to_expert(), next.slot_to_expert()));
  RC_ASSERT(received == ReferenceReceives(layout, now.slot_to_expert(), next.slot_to_expert()));
}

TEST(LayerMoves, SpreadsReadsOverHolders) {
  // Expert 0 lies on ranks 0 and 1; ranks 2 .. 5 want it.
  const SlotLayout layout{.num_slots = 12, .num_ranks = 6};
  const auto now = ExpertMap::Create(6, layout, {0, 1, 0, 2, 3, 4, 5, 1, 3, 4, 5, 2}, Epoch(1));
  Ints sends(6);
  const auto moves = LayerMoves(*now, Ints{0, 1, 0, 2, 3, 0, 5, 0, 0, 4, 0, 2}, Hosts::Even(6, 1), sends);
  EXPECT_EQ(moves.size(), 4u);
  EXPECT_EQ(sends, (Ints{2, 2, 0, 0, 0, 0}));
}

// The picture in moves.h.
TEST(MakeSchedule, AMoveFillsASpareAndLeavesOne) {
  const SlotLayout layout{.num_slots = 4, .num_ranks = 2};
  const std::vector<ExpertMap> now = {*ExpertMap::Create(3, layout, {0, 1, 2, 2}, Epoch(1))};
  const Plan plan{
      .layout = layout, .num_experts = 3, .layers = {{.slot_to_expert = {0, 1, 2, 0}, .changed = true}}};
  PlaceTable places(1, layout, 1);
  const auto schedule = MakeSchedule(now, plan, places, Hosts::Even(2, 1));
  ASSERT_TRUE(schedule);
  ASSERT_EQ(schedule->waves.size(), 1u);
  EXPECT_EQ(schedule->waves[0].writes,
            (std::vector<Write>{
                {.rank = 1, .place = 2, .layer = 0, .expert = 0, .source_rank = 0, .source_place = 0}}));
  places.Apply(schedule->waves[0]);
  EXPECT_EQ(Ints(places.Layer(0).begin(), places.Layer(0).end()), (Ints{0, 1, 0, 2}));
  EXPECT_EQ(places.SparesOf(1)[0], 1);
}

TEST(MakeSchedule, SpareRoomDecidesTheNumberOfWaves) {
  // Two ranks exchange all four of their experts: four circles.
  const SlotLayout layout{.num_slots = 8, .num_ranks = 2};
  const std::vector<ExpertMap> now = {*StartMap(8, 0, 2, Placement::kLinear)};
  const Plan plan{.layout = layout,
                  .num_experts = 8,
                  .layers = {{.slot_to_expert = {4, 5, 6, 7, 0, 1, 2, 3}, .changed = true}}};
  for (const auto& [spares, waves] : std::map<int32_t, size_t>{{1, 4}, {2, 2}, {3, 2}, {4, 1}}) {
    const auto schedule = MakeSchedule(now, plan, PlaceTable(1, layout, spares), Hosts::Even(2, 1));
    ASSERT_TRUE(schedule);
    EXPECT_EQ(schedule->waves.size(), waves) << spares;
    EXPECT_EQ(schedule->num_received, 8);
  }
  const auto none = MakeSchedule(now, plan, PlaceTable(1, layout, 0), Hosts::Even(2, 1));
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().code, Code::kResourceExhausted);
}

TEST(MakeSchedule, RefusesWhatDoesNotFit) {
  const SlotLayout layout{.num_slots = 4, .num_ranks = 2};
  const std::vector<ExpertMap> now = {*StartMap(4, 0, 2, Placement::kLinear)};
  const PlaceTable places(1, layout, 1);
  Plan plan{
      .layout = layout, .num_experts = 4, .layers = {{.slot_to_expert = {0, 2, 1, 3}, .changed = true}}};
  const Hosts hosts = Hosts::Even(2, 1);
  ASSERT_TRUE(MakeSchedule(now, plan, places, hosts));
  EXPECT_FALSE(MakeSchedule({}, plan, places, hosts));
  EXPECT_FALSE(MakeSchedule(now, plan, PlaceTable(2, layout, 1), hosts));
  EXPECT_FALSE(MakeSchedule(now, plan, places, Hosts::Even(3, 1)));
  plan.layers[0].slot_to_expert = {0, 0, 1, 3};
  EXPECT_FALSE(MakeSchedule(now, plan, places, hosts));
}

}  // namespace
}  // namespace cadre::eplb
