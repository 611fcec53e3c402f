#pragma once
// One engine over the engines of all data-parallel replicas: a request goes to the one with the least to do.
#include <atomic>
#include <memory>
#include <vector>

#include "engine/engine.h"

namespace cadre::cluster {

class EngineCluster : public engine::Engine {
 public:
  /// At least one engine; all serve the same model and outlive the cluster.
  explicit EngineCluster(std::vector<engine::Engine*> engines);

  const engine::ModelInfo& model_info() const override { return engines_.front()->model_info(); }
  /// Request::data_parallel_rank picks an engine by its index; -1: the one with the fewest waiting and
  /// running requests, where one that waits counts as four that run (vLLM's weights), in turn among equals.
  Result<std::unique_ptr<engine::RequestHandle>> Submit(engine::Request request,
                                                        std::shared_ptr<engine::EventSink> sink) override;
  std::vector<engine::RankStats> Stats() const override;
  /// The first engine that is not well.
  Status Health() const override;
  Status ResetPrefixCache() override;
  /// All at once: ranks that step together also end together.
  void Drain(TimePoint deadline) override;

 private:
  size_t LeastLoaded();

  std::vector<engine::Engine*> engines_;
  std::atomic<size_t> next_{0};
};

}  // namespace cadre::cluster
