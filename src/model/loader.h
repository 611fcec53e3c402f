#pragma once
// A checkpoint into memory, on all threads of a rank.
#include <cstdint>
#include <functional>
#include <string>

#include "base/error.h"
#include "checkpoint/source.h"
#include "model/spec.h"
#include "model/weight_plan.h"
#include "model/weights.h"
#include "sys/memory.h"
#include "sys/threads.h"

namespace cadre::model {

struct LoadOptions {
  bool dense = true;  ///< false on a rank that maps another rank's dense arena
  bool experts = true;
  int64_t generation = 1;
  /// Bytes read so far and in all; called on the calling thread only, now and then and once at the end.
  std::function<void(int64_t done, int64_t total)> progress = {};
};

struct LoadReport {
  int64_t source_bytes = 0;  ///< read
  double seconds = 0;
  int64_t num_unknown = 0;        ///< tensors of the checkpoint that nothing asked for
  int64_t num_future_layers = 0;  ///< tensors of multi-token prediction layers, left out
};

/// Fills the places of `weights` (from PlaceWeights) and gives them options.generation. After an error the
/// places hold anything and the generation is unchanged. Logs what was left out (on ep_rank 0). Errors: as
/// MapWeights, and kDataLoss while reading.
Result<LoadReport> LoadWeights(const ModelSpec& spec, const WeightPlan& plan,
                               const checkpoint::TensorSource& source, sys::ThreadPool& pool,
                               const LoadOptions& options, ModelWeights& weights);

/// A model whose two arenas are this process's own.
struct LoadedModel {
  ModelSpec spec;
  WeightPlan plan;
  sys::Region dense, experts;
  ModelWeights weights;
  LoadReport report;
};

/// All of it for one rank, from a model folder.
Result<LoadedModel> LoadModel(const std::string& folder, const WeightLayout& layout, sys::ThreadPool& pool,
                              const LoadOptions& options = {});

}  // namespace cadre::model
