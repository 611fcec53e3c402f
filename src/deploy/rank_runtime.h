#pragma once
// One rank, put together: threads, weights, KV pool, exchange, decoder, engine. Owns all of it, in the order
// in which it must be taken apart.
#include <functional>
#include <map>
#include <memory>
#include <optional>

#include "a2a/a2a.h"
#include "a2a/collective.h"
#include "deploy/expert_moves.h"
#include "deploy/kv_agent.h"
#include "deploy/model_setup.h"
#include "deploy/weight_keeper.h"
#include "engine/local_engine.h"
#include "fabric/rendezvous.h"
#include "model/loader.h"
#include "sys/threads.h"

namespace cadre::deploy {

/// What a rank of several gets from its group; all null for a rank alone.
struct RankLinks {
  /// Told when this rank's engine has run out of memory (engine::LocalEngineOptions).
  std::function<void(const Error&)> on_out_of_memory;
  fabric::Rendezvous* rendezvous = nullptr;
  std::unique_ptr<engine::StepGate> gate;
  std::unique_ptr<a2a::Collective> tensor_parallel;
};

using LoadProgress = std::function<void(int64_t done, int64_t total)>;

class RankRuntime {
 public:
  ~RankRuntime();

  /// Loads the rank's weights and, on tensor-parallel rank 0, starts its engine. With a rendezvous it is
  /// collective: one rank of each shard reads the dense weights, the others map them. Errors as the parts
  /// say.
  static Result<std::unique_ptr<RankRuntime>> Start(const config::EngineOptions& options,
                                                    const ModelSetup& setup, RankPlace place, RankLinks links,
                                                    TimePoint join_deadline, LoadProgress progress);

  /// Null on tensor-parallel ranks other than 0.
  engine::Engine* engine() const { return engine_.get(); }
  /// What such a rank does instead: computes the steps of its replica until that ends.
  Status Follow();

 private:
  RankRuntime() = default;
  Status Load(const config::EngineOptions& options, const ModelSetup& setup, RankPlace place,
              TimePoint join_deadline, LoadProgress progress);
  Result<std::byte*> PlaceDense(const config::EngineOptions& options, const ModelSetup& setup,
                                RankPlace place, int64_t bytes, TimePoint join_deadline);
  bool ReadsDense(RankPlace place) const;
  Result<std::byte*> PlaceExperts(const ModelSetup& setup, RankPlace place, int64_t bytes,
                                  TimePoint join_deadline);
  Status Connect(const config::EngineOptions& options, const ModelSetup& setup, RankPlace place,
                 TimePoint join_deadline);
  Status MakeKvPool(const config::EngineOptions& options, const ModelSetup& setup, RankPlace place,
                    TimePoint join_deadline);

  RankLinks links_;
  std::unique_ptr<sys::ThreadPool> pool_;
  model::ModelSpec spec_;
  std::vector<eplb::ExpertMap> maps_;
  std::map<int, fabric::Mapping> shared_dense_;  // by tp rank; one of them is ours
  sys::Region dense_, experts_;
  sys::Segment kv_;  // without hand-off: private memory
  model::ModelWeights weights_;
  ExpertMoves moves_;
  Status KeepWeights(const config::EngineOptions& options, const ModelSetup& setup, RankPlace place,
                     TimePoint join_deadline);

  Status LoadAdapters(const std::vector<config::LoraModule>& modules);

  model::WeightPlan plan_;
  std::unique_ptr<a2a::Collective> all_ranks_;  // for orders about weights; null for a rank alone
  std::unique_ptr<AdapterKeeper> adapters_;     // null without --enable-lora
  std::unique_ptr<WeightKeeper> keeper_;
  std::optional<nn::SimulatedRouting> simulated_routing_;
  std::unique_ptr<a2a::AllToAll> exchange_;
  std::unique_ptr<model::Decoder> decoder_;
  std::shared_ptr<EngineWaker> waker_ = std::make_shared<EngineWaker>();
  std::unique_ptr<handoff::Agent> agent_;  // null without hand-off
  std::unique_ptr<engine::Runner> follower_;
  std::unique_ptr<engine::LocalEngine> engine_;
};

}  // namespace cadre::deploy
