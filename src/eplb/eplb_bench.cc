// What a rebalance costs to work out, at DeepSeek-V3's size: 58 layers, 256 experts in 8 groups, 32 ranks of
// 4 hosts with 9 slots each, loads drawn by Zipf 1.0.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <random>

#include "eplb/load.h"
#include "eplb/moves.h"
#include "eplb/placement.h"
#include "eplb/policy.h"

namespace cadre::eplb {
namespace {

constexpr int32_t kLayers = 58, kExperts = 256, kRedundant = 32, kRanks = 32;

LoadTable ZipfLoad() {
  LoadTable load(kLayers, kExperts);
  std::mt19937 rng(1);
  for (int32_t layer = 0; layer < kLayers; ++layer) {
    const auto counts = load.Layer(layer);
    for (size_t e = 0; e < counts.size(); ++e) counts[e] = 10'000'000 / static_cast<int64_t>(e + 1);
    std::shuffle(counts.begin(), counts.end(), rng);
  }
  return load;
}

struct Case {
  LoadTable load = ZipfLoad();
  std::vector<ExpertMap> present{kLayers, *StartMap(kExperts, kRedundant, kRanks, Placement::kLinear)};
  PolicyInput input{
      .load = &load, .num_groups = 8, .hosts = Hosts::Even(kRanks, 4), .layout = present.front().layout()};
};

void BM_MakePlan(benchmark::State& state) {
  const Case c;
  const Policy& policy = **FindPolicy("default");
  for (auto _ : state) benchmark::DoNotOptimize(MakePlan(policy, c.input, c.present));
}
BENCHMARK(BM_MakePlan)->Unit(benchmark::kMillisecond);

// Argument: spare places a rank.
void BM_MakeSchedule(benchmark::State& state) {
  const Case c;
  const Plan plan = *MakePlan(**FindPolicy("default"), c.input, c.present);
  const PlaceTable places(kLayers, c.input.layout, static_cast<int32_t>(state.range(0)));
  size_t waves = 0;
  for (auto _ : state) waves = MakeSchedule(c.present, plan, places, c.input.hosts)->waves.size();
  state.counters["waves"] = static_cast<double>(waves);
}
BENCHMARK(BM_MakeSchedule)->Arg(1)->Arg(9)->Unit(benchmark::kMillisecond);

// Argument: rows of the step, 8 choices each.
void BM_WindowPush(benchmark::State& state) {
  LoadWindow window(kLayers, kExperts, 1000);
  std::mt19937 rng(1);
  std::vector<std::vector<uint32_t>> steps(64, std::vector<uint32_t>(kLayers * kExperts));
  for (auto& step : steps) {
    for (int64_t i = 0; i < state.range(0) * 8 * kLayers; ++i) ++step[rng() % step.size()];
  }
  size_t next = 0;
  for (int i = 0; i < 1000; ++i) window.Push(steps[next++ % steps.size()]);
  for (auto _ : state) window.Push(steps[next++ % steps.size()]);
  state.counters["MB"] = static_cast<double>(window.bytes()) / 1e6;
}
BENCHMARK(BM_WindowPush)->Arg(1)->Arg(32)->Arg(2048)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace cadre::eplb
