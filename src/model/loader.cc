#include "model/loader.h"

#include <atomic>
#include <mutex>

#include "base/clock.h"
#include "base/log.h"
#include "checkpoint/hf_config.h"
#include "model/registry.h"
#include "model/weight_map.h"
#include "model/weight_sink.h"

namespace cadre::model {
namespace {

void LogLeftOut(const WeightMap& map, const checkpoint::TensorSource& source) {
  if (map.num_future_layers > 0) {
    LogInfo("{} tensors of layers past the last one (multi-token prediction) are not used",
            map.num_future_layers);
  }
  if (map.num_activation_scales > 0) {
    LogInfo(
        "{} scales for fp8 activations, keys and values are not used: those are computed without quantising",
        map.num_activation_scales);
  }
  if (!map.unknown.empty()) {
    LogWarning("{} tensors of the checkpoint are not used by this architecture, the first is '{}' in {}",
               map.unknown.size(), map.unknown.front()->name, source.FileOf(*map.unknown.front()));
  }
}

// Runs all tasks; stops early at the first error and returns it.
Status RunAll(WeightSink& sink, sys::ThreadPool& pool, const LoadOptions& options) {
  std::vector<WeightSink::Scratch> scratch(static_cast<size_t>(pool.num_threads()));
  std::atomic<int64_t> done = 0;
  std::atomic<bool> failed = false;
  std::mutex mutex;
  Status status;
  TimePoint last = Now();
  pool.ForEach(sink.num_tasks(), [&](int64_t task, int worker) {
    if (failed.load(std::memory_order_relaxed)) return;
    auto read = sink.Run(task, scratch[static_cast<size_t>(worker)]);
    if (!read) {
      failed = true;
      const std::lock_guard lock(mutex);
      if (status) status = std::unexpected(std::move(read).error());
      return;
    }
    done.fetch_add(*read, std::memory_order_relaxed);
    if (worker == 0 && options.progress && SecondsSince(last) > 0.1) {
      last = Now();
      options.progress(done.load(std::memory_order_relaxed), sink.source_bytes());
    }
  });
  if (status && options.progress) options.progress(done.load(), sink.source_bytes());
  return status;
}

}  // namespace

Result<LoadReport> LoadWeights(const ModelSpec& spec, const WeightPlan& plan,
                               const checkpoint::TensorSource& source, sys::ThreadPool& pool,
                               const LoadOptions& options, ModelWeights& weights) {
  const TimePoint start = Now();
  CADRE_ASSIGN(const WeightMap map, MapWeights(spec, plan, weights, source));
  if (plan.layout.ep_rank == 0) LogLeftOut(map, source);
  WeightSink sink(map, source, {.dense = options.dense, .experts = options.experts});
  CADRE_TRY(RunAll(sink, pool, options));
  CADRE_TRY(sink.Commit(weights, options.generation));
  return LoadReport{.source_bytes = sink.source_bytes(),
                    .seconds = SecondsSince(start),
                    .num_unknown = static_cast<int64_t>(map.unknown.size()),
                    .num_future_layers = map.num_future_layers};
}

Result<LoadedModel> LoadModel(const std::string& folder, const WeightLayout& layout, sys::ThreadPool& pool,
                              const LoadOptions& options) {
  CADRE_ASSIGN(const checkpoint::ModelFiles files, checkpoint::ReadModelFiles(folder));
  LoadedModel model;
  CADRE_ASSIGN(model.spec, ReadModelSpec(files.config, files.generation_config));
  CADRE_ASSIGN(const auto source, checkpoint::OpenCheckpoint(folder));
  CADRE_ASSIGN(model.plan, PlanWeights(model.spec, layout));
  CADRE_ASSIGN(model.dense, sys::AllocateRegion(static_cast<size_t>(model.plan.dense_bytes)));
  CADRE_ASSIGN(model.experts, sys::AllocateRegion(static_cast<size_t>(model.plan.expert_bytes)));
  model.weights = PlaceWeights(model.spec, model.plan, model.dense.data(), model.experts.data());
  CADRE_ASSIGN(model.report, LoadWeights(model.spec, model.plan, *source, pool, options, model.weights));
  return model;
}

}  // namespace cadre::model
