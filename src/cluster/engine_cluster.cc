#include "cluster/engine_cluster.h"

#include <thread>

#include "base/check.h"

namespace cadre::cluster {

EngineCluster::EngineCluster(std::vector<engine::Engine*> engines) : engines_(std::move(engines)) {
  CADRE_CHECK(!engines_.empty());
}

Result<std::unique_ptr<engine::RequestHandle>> EngineCluster::Submit(
    engine::Request request, std::shared_ptr<engine::EventSink> sink) {
  const int wanted = request.data_parallel_rank;
  if (wanted >= static_cast<int>(engines_.size())) {
    return FailParam(Code::kInvalidArgument, "data_parallel_rank",
                     "data_parallel_rank {} is out of range [0, {})", wanted, engines_.size());
  }
  const size_t chosen = wanted >= 0 ? static_cast<size_t>(wanted) : LeastLoaded();
  return engines_[chosen]->Submit(std::move(request), std::move(sink));
}

size_t EngineCluster::LeastLoaded() {
  const size_t start = next_.fetch_add(1, std::memory_order_relaxed) % engines_.size();
  size_t best = start;
  int64_t least = INT64_MAX;
  for (size_t i = 0; i < engines_.size(); ++i) {
    const size_t candidate = (start + i) % engines_.size();
    const engine::RankStats stats = engines_[candidate]->Stats().front();
    const int64_t load = 4 * stats.num_waiting + stats.num_running;
    if (load < least) {
      least = load;
      best = candidate;
    }
  }
  return best;
}

std::vector<engine::RankStats> EngineCluster::Stats() const {
  std::vector<engine::RankStats> all;
  for (engine::Engine* engine : engines_) {
    for (const engine::RankStats& stats : engine->Stats()) all.push_back(stats);
  }
  return all;
}

Status EngineCluster::Health() const {
  for (engine::Engine* engine : engines_) CADRE_TRY(engine->Health());
  return {};
}

Status EngineCluster::ResetPrefixCache() {
  for (engine::Engine* engine : engines_) CADRE_TRY(engine->ResetPrefixCache());
  return {};
}

void EngineCluster::Drain(TimePoint deadline) {
  std::vector<std::jthread> threads;
  for (engine::Engine* engine : engines_)
    threads.emplace_back([engine, deadline] { engine->Drain(deadline); });
}

}  // namespace cadre::cluster
