#pragma once
// One rank, put together: threads, weights, KV pool, exchange, decoder, engine. Owns all of it, in the order in which
// it must be taken apart.
#include <functional>
#include <memory>

#include "a2a/a2a.h"
#include "a2a/collective.h"
#include "deploy/model_setup.h"
#include "engine/local_engine.h"
#include "model/loader.h"
#include "sys/threads.h"

namespace cadre::deploy {

/// What a rank of several gets from its group; all null for a rank alone.
struct RankLinks {
  fabric::Rendezvous* rendezvous = nullptr;
  std::unique_ptr<engine::StepGate> gate;
  std::unique_ptr<a2a::Collective> tensor_parallel;
};

using LoadProgress = std::function<void(int64_t done, int64_t total)>;

class RankRuntime {
 public:
  /// Loads the rank's weights and starts its engine (on tp rank 0) or its follower thread. Errors as the parts say.
  static Result<std::unique_ptr<RankRuntime>> Start(const config::EngineOptions& options, const ModelSetup& setup,
                                                    RankPlace place, RankLinks links, LoadProgress progress);

  /// Null on tensor-parallel ranks other than 0.
  engine::Engine* engine() const { return engine_.get(); }
  const model::LoadReport& load_report() const { return load_report_; }

 private:
  RankRuntime() = default;
  Status Load(const config::EngineOptions& options, const ModelSetup& setup, RankPlace place, LoadProgress progress);
  Status Connect(const config::EngineOptions& options, const ModelSetup& setup, RankPlace place);

  RankLinks links_;
  std::unique_ptr<sys::ThreadPool> pool_;
  model::ModelSpec spec_;
  std::vector<eplb::ExpertMap> maps_;
  sys::Region dense_, experts_, kv_;
  model::ModelWeights weights_;
  model::LoadReport load_report_;
  std::unique_ptr<a2a::AllToAll> exchange_;
  std::unique_ptr<model::Decoder> decoder_;
  std::unique_ptr<engine::LocalEngine> engine_;
};

}  // namespace cadre::deploy
