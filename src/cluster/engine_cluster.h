#pragma once
// One engine over the engines of all data-parallel replicas: a request goes to the one with the least to do.
#include <memory>
#include <vector>

#include "cluster/load_board.h"
#include "engine/engine.h"

namespace cadre::cluster {

struct ClusterOptions {
  /// Where all fronts of these engines keep their loads; null: this is the only front.
  std::shared_ptr<LoadBoard> board;
  int front = 0;  ///< this one's column there
  bool prefix_caching = true;
};

class EngineCluster : public engine::Engine {
 public:
  /// At least one engine; all serve the same model and outlive the cluster. The board's ranks are their
  /// indices.
  static Result<std::unique_ptr<EngineCluster>> Create(std::vector<engine::Engine*> engines,
                                                       ClusterOptions options = {});

  const engine::ModelInfo& model_info() const override { return engines_.front()->model_info(); }
  /// Request::data_parallel_rank picks an engine by its index; -1: the best by the rule in load.h.
  Result<std::unique_ptr<engine::RequestHandle>> Submit(engine::Request request,
                                                        std::shared_ptr<engine::EventSink> sink) override;
  /// Waiting requests are counted by the board: also those that a rank has not seen yet.
  std::vector<engine::RankStats> Stats() const override;
  /// The first engine that is not well.
  Status Health() const override;
  /// Of the first rank that answers: all have the same.
  Result<engine::EplbState> Eplb(TimePoint deadline) const override;
  Status ResetPrefixCache() override;
  /// To all engines; answered when all have: with the state of the first, or the first error.
  void Control(engine::ControlRequest request, engine::ControlDone done) override;
  std::vector<engine::KvSource> KvSources() const override;
  /// Of the rank that is named; ranks are the engines' indices.
  void Prefixes(engine::PrefixQuery query, engine::PrefixDone done) override;
  /// All at once: ranks that step together also end together.
  void Drain(TimePoint deadline) override;

  const std::shared_ptr<LoadBoard>& board() const { return options_.board; }

 private:
  EngineCluster(std::vector<engine::Engine*> engines, ClusterOptions options);
  int64_t Held(int rank, const std::vector<uint64_t>& blocks) const;
  size_t Choose(const engine::Request& request, const std::vector<uint64_t>& blocks);

  std::vector<engine::Engine*> engines_;
  ClusterOptions options_;
};

}  // namespace cadre::cluster
