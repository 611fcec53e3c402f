#pragma once
// What a deployment needs so that experts can move: places for them, and who moves them.
#include <memory>

#include "a2a/collective.h"
#include "config/serve_options.h"
#include "deploy/load_recorder.h"
#include "deploy/model_setup.h"
#include "fabric/rendezvous.h"
#include "model/weights.h"
#include "rebalance/rebalancer.h"

namespace cadre::deploy {

/// How much memory a rank's experts take where they move; all zero where they stay.
Result<ExpertPlaces> PlacesOf(const config::ParallelOptions& parallel, const ModelSetup& setup);

/// A rank's part in balancing. Members are taken apart in reverse order.
struct ExpertMoves {
  std::unique_ptr<rebalance::ExpertMemory> memory;  ///< null for a rank alone
  std::unique_ptr<a2a::Collective> collective;      ///< null for a rank alone
  std::unique_ptr<rebalance::Rebalancer> rebalancer;
  std::unique_ptr<LoadRecorder> recorder;  ///< on rank 0, with --eplb-record
};

/// The memory for all experts of this rank and its spares, which are touched here: a page fault in a step
/// costs more than the copy. Collective. Errors: those of ExpertMemory::Create.
Result<std::unique_ptr<rebalance::ExpertMemory>> MakeExpertMemory(const ModelSetup& setup, RankPlace place,
                                                                  fabric::Rendezvous& rendezvous,
                                                                  sys::ThreadPool& pool,
                                                                  TimePoint join_deadline);

/// Makes `moves.collective` and `moves.rebalancer`; `moves.memory` is there. Collective. `maps` as the rank
/// uses them.
Status StartBalancing(const config::EngineOptions& options, const ModelSetup& setup,
                      fabric::Rendezvous* rendezvous, sys::ThreadPool& pool, TimePoint join_deadline,
                      const std::vector<eplb::ExpertMap>& maps, model::ModelWeights& weights,
                      ExpertMoves& moves);

}  // namespace cadre::deploy
