#include <gtest/gtest.h>

#include <cstring>
#include <numeric>

#include "eplb/placement.h"
#include "fabric/ranks_testing.h"
#include "rebalance/rebalancer.h"

namespace cadre::rebalance {
namespace {

using namespace std::chrono_literals;

constexpr int64_t kPlaceBytes = 192;

// What an expert's weights look like: no two bytes of no two experts alike by chance.
std::byte PatternAt(int layer, int expert, int64_t i) {
  const uint64_t mixed = static_cast<uint64_t>(layer * 1000 + expert + 1) * 0x9E3779B97F4A7C15u +
                         static_cast<uint64_t>(i) * 0xC2B2AE3D27D4EB4Fu;
  return static_cast<std::byte>(mixed >> 56);
}

void Fill(std::byte* place, int64_t bytes, int layer, int expert) {
  for (int64_t i = 0; i < bytes; ++i) place[i] = PatternAt(layer, expert, i);
}

bool Holds(const void* place, int64_t bytes, int layer, int expert) {
  for (int64_t i = 0; i < bytes; ++i)
    if (static_cast<const std::byte*>(place)[i] != PatternAt(layer, expert, i)) return false;
  return true;
}

struct World {
  std::vector<int> ranks_per_host;
  int32_t num_layers = 2, num_experts = 6, num_redundant = 2, num_spares = 1;
  int64_t place_bytes = kPlaceBytes;
  int64_t message_bytes = 0;

  int num_ranks() const { return std::accumulate(ranks_per_host.begin(), ranks_per_host.end(), 0); }
};

// One rank with everything that a Rebalancer needs; its places hold the start map's experts.
struct RankOfWorld {
  RankOfWorld(const World& w, fabric::Rendezvous& rendezvous)
      : world(w), pool({.num_threads = 1, .spin = false}) {
    auto start = eplb::StartMap(w.num_experts, w.num_redundant, w.num_ranks(), eplb::Placement::kLinear);
    EXPECT_TRUE(start) << start.error().message;
    const eplb::SlotLayout layout = start->layout();
    maps.assign(static_cast<size_t>(w.num_layers), *start);
    auto made = ExpertMemory::Create({.rendezvous = &rendezvous,
                                      .place_bytes = w.place_bytes,
                                      .max_places = w.num_layers * layout.Count(0) + w.num_spares,
                                      .message_bytes = w.message_bytes,
                                      .spin = false,
                                      .join_deadline = Now() + 60s});
    EXPECT_TRUE(made) << made.error().message;
    memory = std::move(*made);
    auto group = a2a::Collective::Create({.name = "eplb", .rendezvous = &rendezvous, .spin = false});
    EXPECT_TRUE(group) << group.error().message;
    collective = std::move(*group);
    collective->BeginStep(0, Now() + 60s);
    rank = rendezvous.rank();
    weights.resize(static_cast<size_t>(w.num_layers));
    const int64_t half = w.place_bytes / 2;
    for (int32_t l = 0; l < w.num_layers; ++l) {
      for (int32_t i = 0; i < layout.Count(rank); ++i) {
        const int32_t expert = start->ExpertsOn(rank)[static_cast<size_t>(i)];
        std::byte* const place = memory->own(l * layout.Count(rank) + i);
        Fill(place, w.place_bytes, l, expert);
        nn::MoeWeights& moe = weights[static_cast<size_t>(l)];
        moe.logical.push_back(expert);
        kernels::ExpertWeights& e = moe.experts.emplace_back();
        e.gate_up.data = place;
        e.down_bias = reinterpret_cast<const float*>(place + half);
      }
    }
    EXPECT_TRUE(collective->Barrier());
  }

  RebalanceParts Parts() {
    RebalanceParts parts{.memory = memory.get(), .collective = collective.get(), .pool = &pool, .maps = maps};
    for (nn::MoeWeights& moe : weights) parts.weights.push_back(&moe);
    return parts;
  }

  // Every slot of this rank points to the weights of the expert that the map says.
  void CheckWeights(const Rebalancer& rebalancer) const {
    const int64_t half = world.place_bytes / 2;
    for (size_t l = 0; l < weights.size(); ++l) {
      const auto wanted = rebalancer.maps()[l]->ExpertsOn(rank);
      ASSERT_EQ(wanted.size(), weights[l].experts.size());
      for (size_t i = 0; i < wanted.size(); ++i) {
        ASSERT_EQ(weights[l].logical[i], wanted[i]);
        const auto* place = static_cast<const std::byte*>(weights[l].experts[i].gate_up.data);
        ASSERT_TRUE(Holds(place, world.place_bytes, static_cast<int>(l), wanted[i]))
            << "layer " << l << " slot " << i << " of rank " << rank;
        ASSERT_EQ(reinterpret_cast<const std::byte*>(weights[l].experts[i].down_bias), place + half);
      }
    }
  }

  World world;
  int rank = 0;
  sys::ThreadPool pool;
  std::vector<eplb::ExpertMap> maps;
  std::unique_ptr<ExpertMemory> memory;
  std::unique_ptr<a2a::Collective> collective;
  std::vector<nn::MoeWeights> weights;
};

// What this rank's router chooses in a step: expert e is drawn with weight 1 / (1 + (e + shift) mod experts).
void Choose(const World& w, Rebalancer& rebalancer, int shift, int step, int rank) {
  for (int32_t l = 0; l < w.num_layers; ++l) {
    const eplb::ExpertMap& map = *rebalancer.maps()[static_cast<size_t>(l)];
    const auto slots = static_cast<size_t>(map.layout().num_slots);
    uint32_t* counts = rebalancer.slot_counts().data() + static_cast<size_t>(l) * slots;
    for (int32_t e = 0; e < w.num_experts; ++e) {
      const int32_t place = (e + shift + l) % w.num_experts;
      const auto of = map.SlotsOf(LogicalExpert(e));
      for (int i = 0; i < 60 / (1 + place); ++i)
        ++counts[of[static_cast<size_t>(i + step + rank) % of.size()]];
    }
  }
}

std::vector<std::vector<int32_t>> SlotsOf(const Rebalancer& rebalancer) {
  std::vector<std::vector<int32_t>> slots;
  for (const eplb::ExpertMap* map : rebalancer.maps()) {
    std::vector<int32_t>& layer = slots.emplace_back();
    for (int32_t s = 0; s < map->layout().num_slots; ++s) layer.push_back(map->ExpertOf(Slot(s)).value);
  }
  return slots;
}

// Steps until `until` says so; the weights are checked after every one.
void RunSteps(RankOfWorld& rank, Rebalancer& rebalancer, int64_t& step, int num_steps, int shift) {
  for (int i = 0; i < num_steps; ++i) {
    ++step;
    Choose(rank.world, rebalancer, shift, static_cast<int>(step), rank.rank);
    const Status status =
        rebalancer.AfterStep({.step = step, .had_rows = true, .busy = 100us, .deadline = Now() + 60s});
    ASSERT_TRUE(status) << status.error().message;
    rank.CheckWeights(rebalancer);
  }
}

const World kWorlds[] = {
    {.ranks_per_host = {2}},
    {.ranks_per_host = {4}, .num_experts = 16, .num_redundant = 4, .num_spares = 4},
    {.ranks_per_host = {3}, .num_layers = 3, .num_experts = 7, .num_redundant = 3, .num_spares = 2},
    {.ranks_per_host = {1, 1}, .num_experts = 8, .num_redundant = 0},
    {.ranks_per_host = {2, 2}, .num_experts = 16, .num_redundant = 4, .num_spares = 3, .message_bytes = 320},
    {.ranks_per_host = {2, 1, 1},
     .num_experts = 9,
     .num_redundant = 2,
     .num_spares = 1,
     .message_bytes = 128},
    {.ranks_per_host = {2}, .num_layers = 1, .num_experts = 5, .place_bytes = 256 << 10},
};

void RunRanks(const World& world, const fabric::RankBody& body) {
  if (world.ranks_per_host.size() == 1) {
    fabric::RunThreads(world.num_ranks(), body);
  } else {
    fabric::RunHosts(world.ranks_per_host, "loop", body);
  }
}

TEST(Rebalancer, EverySlotHoldsItsExpertInEveryStepOfSeveralRebalances) {
  for (const World& world : kWorlds) {
    for (const bool use_async : {true, false}) {
      RunRanks(world, [&](fabric::Rendezvous& rendezvous) {
        RankOfWorld rank(world, rendezvous);
        auto made = Rebalancer::Create(
            {.window_size = 8, .step_interval = 40, .use_async = use_async, .num_spares = world.num_spares},
            rank.Parts());
        ASSERT_TRUE(made) << made.error().message;
        Rebalancer& rebalancer = **made;
        const auto before = SlotsOf(rebalancer);
        int64_t step = 0;
        RunSteps(rank, rebalancer, step, 200, 0);
        const auto balanced = SlotsOf(rebalancer);
        EXPECT_NE(balanced, before);
        const Snapshot first = rebalancer.snapshot();
        EXPECT_GE(first.num_rebalances, 1);
        EXPECT_EQ(first.slots, balanced);
        EXPECT_EQ(first.start_slots, before);
        EXPECT_EQ(*std::ranges::max_element(first.layer_epochs), first.epoch);
        EXPECT_EQ(first.layer_epochs.size(), static_cast<size_t>(world.num_layers));
        RunSteps(rank, rebalancer, step, 400, world.num_experts / 2);
        const Snapshot second = rebalancer.snapshot();
        EXPECT_GT(second.num_rebalances, first.num_rebalances);
        EXPECT_GT(second.epoch, first.epoch);
        EXPECT_GT(second.num_moved, first.num_moved);
        EXPECT_EQ(second.num_failed_waves, 0);
        // The plan is made for the load as it is, so the fullest rank carries no more than with the map of
        // before.
        eplb::Balance old;
        for (int32_t l = 0; l < world.num_layers; ++l)
          old.Add(eplb::RankLoads(second.layout, balanced[static_cast<size_t>(l)], second.load.Layer(l)));
        EXPECT_GE(second.balance.balancedness(), old.balancedness());
      });
    }
  }
}

TEST(Rebalancer, AFailedWaveLeavesMapsAndWeightsAndIsTriedAgain) {
  for (const World& world : {kWorlds[1], kWorlds[4]}) {
    RunRanks(world, [&](fabric::Rendezvous& rendezvous) {
      RankOfWorld rank(world, rendezvous);
      RebalanceParts parts = rank.Parts();
      int fails_left = rank.rank == 1 ? 2 : 0;
      parts.fails = [&](const eplb::Wave&) { return fails_left > 0 && fails_left-- > 0; };
      auto made = Rebalancer::Create({.window_size = 8, .step_interval = 40, .num_spares = world.num_spares},
                                     std::move(parts));
      ASSERT_TRUE(made) << made.error().message;
      Rebalancer& rebalancer = **made;
      const auto before = SlotsOf(rebalancer);
      int64_t step = 0;
      RunSteps(rank, rebalancer, step, 11, 0);  // the first rebalance is due after 10
      EXPECT_EQ(SlotsOf(rebalancer), before);
      EXPECT_EQ(rebalancer.snapshot().num_failed_waves, 2);
      EXPECT_TRUE(rebalancer.moving());
      RunSteps(rank, rebalancer, step, 150, 0);
      EXPECT_NE(SlotsOf(rebalancer), before);
      EXPECT_EQ(rebalancer.snapshot().num_failed_waves, 2);
    });
  }
}

TEST(Rebalancer, AfterTooManyFailuresTheNextIntervalIsAwaited) {
  const World& world = kWorlds[1];
  RunRanks(world, [&](fabric::Rendezvous& rendezvous) {
    RankOfWorld rank(world, rendezvous);
    RebalanceParts parts = rank.Parts();
    parts.fails = [&](const eplb::Wave&) { return rank.rank == 2; };
    auto made = Rebalancer::Create(
        {.window_size = 8, .step_interval = 40, .num_spares = world.num_spares, .num_tries = 3},
        std::move(parts));
    ASSERT_TRUE(made) << made.error().message;
    int64_t step = 0;
    const auto before = SlotsOf(**made);
    RunSteps(rank, **made, step, 30, 0);
    EXPECT_FALSE((*made)->moving());
    EXPECT_EQ((*made)->snapshot().num_failed_waves, 3);
    RunSteps(rank, **made, step, 40, 0);
    EXPECT_EQ((*made)->snapshot().num_failed_waves, 6);
    EXPECT_EQ(SlotsOf(**made), before);
  });
}

TEST(Rebalancer, AnAbandonedRebalanceLeavesWhatIsInUse) {
  const World& world = kWorlds[4];
  RunRanks(world, [&](fabric::Rendezvous& rendezvous) {
    RankOfWorld rank(world, rendezvous);
    auto made = Rebalancer::Create({.window_size = 8, .step_interval = 40, .num_spares = world.num_spares},
                                   rank.Parts());
    ASSERT_TRUE(made) << made.error().message;
    int64_t step = 0;
    RunSteps(rank, **made, step, 11, 0);
    ASSERT_TRUE((*made)->moving());
    const auto slots = SlotsOf(**made);
    (*made)->Abandon("the test says so");
    EXPECT_FALSE((*made)->moving());
    EXPECT_EQ(SlotsOf(**made), slots);
    RunSteps(rank, **made, step, 100, 0);
    EXPECT_GE((*made)->snapshot().num_rebalances, 1);
  });
}

TEST(Rebalancer, AStalledWaveIsNamedAndShown) {
  World world = kWorlds[4];
  world.place_bytes = 512 << 10;
  world.message_bytes = 64 << 10;
  RunRanks(world, [&](fabric::Rendezvous& rendezvous) {
    RankOfWorld rank(world, rendezvous);
    auto made = Rebalancer::Create(
        {.window_size = 8, .step_interval = 40, .num_spares = world.num_spares, .stalled_after = 0ms},
        rank.Parts());
    ASSERT_TRUE(made) << made.error().message;
    int64_t step = 0;
    RunSteps(rank, **made, step, 12, 0);
    ASSERT_TRUE((*made)->moving());
    EXPECT_TRUE((*made)->snapshot().stalled);
    EXPECT_NE((*made)->snapshot().waits_for, "");
  });
}

TEST(Rebalancer, OneRankCountsAndHasNothingToMove) {
  const World world{.ranks_per_host = {1}, .num_redundant = 0};
  std::vector<nn::MoeWeights> weights(2);
  auto map = eplb::StartMap(6, 0, 1, eplb::Placement::kLinear);
  sys::ThreadPool pool({.num_threads = 1});
  auto made =
      Rebalancer::Create({.window_size = 8, .step_interval = 4},
                         {.pool = &pool, .maps = {*map, *map}, .weights = {&weights[0], &weights[1]}});
  ASSERT_TRUE(made) << made.error().message;
  for (int64_t step = 1; step <= 100; ++step) {
    Choose(world, **made, 0, static_cast<int>(step), 0);
    ASSERT_TRUE((*made)->AfterStep({.step = step, .had_rows = true}));
    ASSERT_FALSE((*made)->moving());
  }
  const Snapshot seen = (*made)->snapshot();
  EXPECT_EQ(seen.load.Layer(0)[0], 60 * 8);
  EXPECT_EQ(seen.balance.balancedness(), 1.0);
}

TEST(Rebalancer, RefusesAnUnknownPolicy) {
  std::vector<nn::MoeWeights> weights(1);
  auto map = eplb::StartMap(6, 0, 1, eplb::Placement::kLinear);
  const auto made = Rebalancer::Create({.policy = "best"}, {.maps = {*map}, .weights = {&weights[0]}});
  ASSERT_FALSE(made);
  EXPECT_NE(made.error().message.find("best"), std::string::npos);
}

}  // namespace
}  // namespace cadre::rebalance
