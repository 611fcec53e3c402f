// Circles into waves (moves.h).
#include <algorithm>
#include <map>
#include <numeric>
#include <tuple>
#include <utility>

#include "base/check.h"
#include "eplb/circles.h"
#include "eplb/hash.h"
#include "eplb/moves.h"

namespace cadre::eplb {
namespace {

constexpr auto kBad = Code::kInvalidArgument;

// A layer on its way: what its slots hold and where.
struct LayerState {
  std::vector<int32_t> experts, places;                // [slots] now, with this wave's writes
  std::vector<int32_t> experts_before, places_before;  // at the start of the wave
  std::vector<int32_t> at;      // [slots] where the thing is that was in the slot before the plan
  std::vector<int32_t> origin;  // [slots] the inverse; stale where the slot has its new expert
};

class Scheduler {
 public:
  Scheduler(const PlaceTable& places, const Hosts& hosts)
      : table_(places), layout_(places.layout()), hosts_(hosts) {
    StartWave();
  }

  // Takes one layer from `present` to `target`, both [slots].
  void AddLayer(int32_t layer, int32_t num_experts, std::span<const int32_t> present,
                std::span<const int32_t> target) {
    std::vector<Circle> circles = CutIntoCircles(layout_, num_experts, present, target);
    std::vector<int32_t> need(static_cast<size_t>(layout_.num_ranks));
    for (const Circle& circle : circles) {
      for (const Swap& swap : circle) ++need[static_cast<size_t>(swap.rank)];
    }
    // A layer that a wave of its own can hold is not torn.
    if (Fits(need, spares_each()) && !Fits(need, left_)) CloseWave();
    LayerState state;
    state.experts.assign(present.begin(), present.end());
    state.places.assign(table_.Layer(layer).begin(), table_.Layer(layer).end());
    state.at.resize(present.size());
    std::iota(state.at.begin(), state.at.end(), 0);
    state.origin = state.at;
    Touch(state);
    // Their order does not matter; a wave takes all that fit.
    std::vector<Circle> waiting;
    while (!circles.empty()) {
      for (Circle& circle : circles) {
        const bool fits = std::all_of(circle.begin(), circle.end(), [&](const Swap& swap) {
          return left_[static_cast<size_t>(swap.rank)] > 0;
        });
        if (!fits) {
          waiting.push_back(std::move(circle));
          continue;
        }
        for (const Swap& swap : circle) Carry(layer, target, swap, state);
      }
      if (state.places != state.places_before) {
        wave_.flips.push_back(
            {.layer = layer, .slot_to_expert = state.experts, .slot_to_place = state.places});
      }
      circles = std::exchange(waiting, {});
      if (circles.empty()) break;
      CloseWave();
      Touch(state);
    }
  }

  Schedule Finish() {
    CloseWave();
    return std::move(schedule_);
  }

 private:
  using Counts = std::vector<int32_t>;  // [ranks]

  Counts spares_each() const { return Counts(static_cast<size_t>(layout_.num_ranks), table_.num_spares()); }
  static bool Fits(const Counts& need, const Counts& have) {
    return std::equal(need.begin(), need.end(), have.begin(), [](int32_t n, int32_t h) { return n <= h; });
  }

  void StartWave() {
    left_ = spares_each();
    sends_.assign(left_.size(), 0);
    fetched_.clear();
  }

  void CloseWave() {
    if (wave_.writes.empty()) return;
    table_.Apply(wave_);
    schedule_.waves.push_back(std::exchange(wave_, {}));
    StartWave();
  }

  static void Touch(LayerState& state) {
    state.experts_before = state.experts;
    state.places_before = state.places;
  }

  void Carry(int32_t layer, std::span<const int32_t> target, const Swap& swap, LayerState& state) {
    const auto gains = static_cast<size_t>(swap.gains);
    const auto gone = static_cast<size_t>(state.at[static_cast<size_t>(swap.loses)]);
    if (gone != gains) {  // what the gaining slot still holds takes the slot of what goes: no weights move
      state.experts[gone] = state.experts[gains];
      state.places[gone] = state.places[gains];
      state.origin[gone] = state.origin[gains];
      state.at[static_cast<size_t>(state.origin[gone])] = static_cast<int32_t>(gone);
    }
    const auto rank = static_cast<size_t>(swap.rank);
    const auto spare = static_cast<size_t>(table_.num_spares() - left_[rank]--);
    Write write{.rank = swap.rank,
                .place = table_.SparesOf(swap.rank)[spare],
                .layer = layer,
                .expert = target[gains]};
    FindSource(state, write);
    fetched_.insert({{write.rank, layer, write.expert}, write.place});
    state.experts[gains] = write.expert;
    state.places[gains] = write.place;
    wave_.writes.push_back(write);
  }

  // As LayerMoves chooses, among the holders before this wave.
  void FindSource(const LayerState& state, Write& write) {
    const auto fetched = fetched_.find({write.rank, write.layer, write.expert});
    if (fetched != fetched_.end()) {
      write.source_rank = write.rank;
      write.source_place = fetched->second;
      ++schedule_.num_local;
      return;
    }
    const int32_t host = hosts_.of_rank[static_cast<size_t>(write.rank)];
    std::tuple<int, int32_t, int32_t, int32_t> best{3, 0, 0, 0};
    for (int32_t rank = 0; rank < layout_.num_ranks; ++rank) {
      for (int32_t slot = layout_.Begin(rank); slot < layout_.Begin(rank + 1); ++slot) {
        if (state.experts_before[static_cast<size_t>(slot)] != write.expert) continue;
        const bool near = hosts_.of_rank[static_cast<size_t>(rank)] == host;
        const int distance = rank == write.rank ? 0 : near ? 1 : 2;
        best = std::min(best, std::tuple{distance, sends_[static_cast<size_t>(rank)], rank, slot});
      }
    }
    const auto [distance, sent, rank, slot] = best;
    CADRE_CHECK(distance < 3);  // the map before the wave is legal
    if (distance > 0) ++sends_[static_cast<size_t>(rank)];
    (distance == 0 ? schedule_.num_local : schedule_.num_received) += 1;
    if (distance == 2) ++schedule_.num_from_hosts;
    write.source_rank = rank;
    write.source_place = state.places_before[static_cast<size_t>(slot)];
  }

  PlaceTable table_;  // as it will be when the open wave starts
  const SlotLayout layout_;
  const Hosts& hosts_;
  Schedule schedule_;
  Wave wave_;
  Counts left_;   // spare places that the open wave has not taken
  Counts sends_;  // reads from each rank by others in the open wave
  std::map<std::tuple<int32_t, int32_t, int32_t>, int32_t> fetched_;  // rank, layer, expert -> its new place
};

Status Check(std::span<const ExpertMap> present, const Plan& plan, const PlaceTable& places,
             const Hosts& hosts) {
  const SlotLayout& layout = places.layout();
  if (plan.layers.size() != present.size() || present.size() != static_cast<size_t>(places.num_layers()))
    return Fail(kBad, "moves want as many layers in plan, maps and places; got {}, {} and {}",
                plan.layers.size(), present.size(), places.num_layers());
  if (plan.layout != layout || hosts.of_rank.size() != static_cast<size_t>(layout.num_ranks))
    return Fail(kBad, "a plan for {} slots on {} ranks does not fit places for {} on {} ranks of {} on hosts",
                plan.layout.num_slots, plan.layout.num_ranks, layout.num_slots, layout.num_ranks,
                hosts.of_rank.size());
  for (size_t layer = 0; layer < present.size(); ++layer) {
    if (present[layer].layout() != layout || present[layer].num_experts() != plan.num_experts)
      return Fail(kBad, "the map of layer {} does not fit the plan", layer);
    CADRE_TRY(ExpertMap::Create(plan.num_experts, layout, plan.layers[layer].slot_to_expert, Epoch(1)));
  }
  return {};
}

uint64_t HashOf(const Schedule& schedule, std::span<const ExpertMap> present, const PlaceTable& places) {
  Fnv hash;
  for (size_t layer = 0; layer < present.size(); ++layer) {
    hash.Add(present[layer].slot_to_expert());
    hash.Add(places.Layer(static_cast<int32_t>(layer)));
  }
  for (const Wave& wave : schedule.waves) {
    for (const Write& write : wave.writes) {
      for (const int32_t part :
           {write.rank, write.place, write.layer, write.expert, write.source_rank, write.source_place})
        hash.Add(int64_t{part});
    }
    for (const Flip& flip : wave.flips) {
      hash.Add(int64_t{flip.layer});
      hash.Add(flip.slot_to_expert);
      hash.Add(flip.slot_to_place);
    }
  }
  return hash.value();
}

}  // namespace

Result<Schedule> MakeSchedule(std::span<const ExpertMap> present, const Plan& plan, const PlaceTable& places,
                              const Hosts& hosts) {
  CADRE_TRY(Check(present, plan, places, hosts));
  Scheduler scheduler(places, hosts);
  for (size_t layer = 0; layer < present.size(); ++layer) {
    const auto now = present[layer].slot_to_expert();
    const std::vector<int32_t> target = TargetSlots(places.layout(), now, plan.layers[layer].slot_to_expert);
    if (std::equal(now.begin(), now.end(), target.begin())) continue;
    if (places.num_spares() < 1)
      return Fail(Code::kResourceExhausted,
                  "moving experts needs at least one spare place a rank; there is none");
    scheduler.AddLayer(static_cast<int32_t>(layer), plan.num_experts, now, target);
  }
  Schedule schedule = scheduler.Finish();
  schedule.hash = HashOf(schedule, present, places);
  return schedule;
}

}  // namespace cadre::eplb
