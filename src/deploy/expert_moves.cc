#include "deploy/expert_moves.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "deploy/expert_start.h"
#include "eplb/footprint.h"

namespace cadre::deploy {

Result<ExpertPlaces> PlacesOf(const config::ParallelOptions& parallel, const ModelSetup& setup) {
  if (!parallel.enable_eplb || parallel.expert_parallel_size() == 1 || setup.expert_maps.empty())
    return ExpertPlaces{};
  // All places are alike, and rank 0 has as many slots as any.
  CADRE_ASSIGN(const model::WeightPlan plan,
               model::PlanWeights(setup.spec,
                                  WeightLayoutOf(setup, parallel, PlaceOf(parallel, 0), setup.expert_maps)));
  const eplb::SlotLayout& layout = setup.expert_maps.front().layout();
  const auto num_slots = static_cast<int32_t>(setup.expert_maps.size()) * layout.Count(0);
  ExpertPlaces places{.place_bytes = plan.expert_bytes / num_slots,
                      .num_spares = parallel.eplb.num_spare_slots
                                        ? static_cast<int32_t>(*parallel.eplb.num_spare_slots)
                                        : eplb::DefaultSpares(layout)};
  places.max_places = num_slots + places.num_spares;
  CADRE_CHECK(places.place_bytes * num_slots == plan.expert_bytes);
  return places;
}

Result<std::unique_ptr<rebalance::ExpertMemory>> MakeExpertMemory(const ModelSetup& setup, RankPlace place,
                                                                  fabric::Rendezvous& rendezvous,
                                                                  sys::ThreadPool& pool,
                                                                  TimePoint join_deadline) {
  const ExpertPlaces& places = setup.expert_places;
  CADRE_ASSIGN(auto memory, rebalance::ExpertMemory::Create({.rendezvous = &rendezvous,
                                                             .place_bytes = places.place_bytes,
                                                             .max_places = places.max_places,
                                                             .spin = setup.spin,
                                                             .join_deadline = join_deadline}));
  const eplb::SlotLayout& layout = setup.expert_maps.front().layout();
  const auto first_spare = static_cast<int32_t>(setup.expert_maps.size()) * layout.Count(place.rank());
  pool.ForEach(places.num_spares, [&](int64_t i, int) {
    std::memset(memory->own(first_spare + static_cast<int32_t>(i)), 0,
                static_cast<size_t>(places.place_bytes));
  });
  return memory;
}

Status StartBalancing(const config::EngineOptions& options, const ModelSetup& setup,
                      fabric::Rendezvous* rendezvous, sys::ThreadPool& pool, TimePoint join_deadline,
                      const std::vector<eplb::ExpertMap>& maps, model::ModelWeights& weights,
                      ExpertMoves& moves) {
  if (rendezvous != nullptr) {
    CADRE_ASSIGN(moves.collective, a2a::Collective::Create({.name = "eplb",
                                                            .rendezvous = rendezvous,
                                                            .capacity_bytes = 1 << 20,
                                                            .join_deadline = join_deadline,
                                                            .spin = setup.spin}));
  }
  rebalance::RebalanceParts parts{.memory = moves.memory.get(),
                                  .collective = moves.collective.get(),
                                  .pool = &pool,
                                  .maps = maps,
                                  .prefer_own_host = options.parallel.eplb.replica_routing == "nearest"};
  for (model::LayerWeights& layer : weights.layers) {
    if (layer.moe.router.data != nullptr) parts.weights.push_back(&layer.moe);
  }
  const config::EplbOptions& eplb = options.parallel.eplb;
  CADRE_ASSIGN(moves.rebalancer,
               rebalance::Rebalancer::Create(
                   {.window_size = static_cast<int32_t>(eplb.window_size),
                    .step_interval = static_cast<int32_t>(eplb.step_interval),
                    .use_async = eplb.use_async,
                    .policy = eplb.policy,
                    .log_balancedness = eplb.log_balancedness,
                    .log_balancedness_interval = static_cast<int32_t>(eplb.log_balancedness_interval),
                    .model_name = options.model.model,
                    .num_groups = setup.spec.moe.num_groups,
                    .num_spares = setup.expert_places.num_spares,
                    .load_model = LoadIdentity(setup),
                    .top_k = static_cast<int32_t>(setup.spec.moe.top_k)},
                   std::move(parts)));
  const bool first = rendezvous == nullptr || rendezvous->rank() == 0;
  if (first && eplb.record_file)
    moves.recorder = std::make_unique<LoadRecorder>(*eplb.record_file, *moves.rebalancer);
  return {};
}

}  // namespace cadre::deploy
