#pragma once
// Everything about a deployment that can be known before weights are read: which model, which shards, how
// much memory.
#include <cstdint>
#include <string>
#include <vector>

#include "a2a/a2a.h"
#include "base/error.h"
#include "checkpoint/hf_config.h"
#include "checkpoint/hub_cache.h"
#include "config/launch.h"
#include "config/serve_options.h"
#include "engine/memory_plan.h"
#include "eplb/expert_map.h"
#include "kernels/isa.h"
#include "model/decoder.h"
#include "model/spec.h"
#include "model/weight_plan.h"
#include "sys/memory.h"

namespace cadre::deploy {

/// Waiting requests before a client is told to come again, where --max-num-queued-reqs does not say.
constexpr int64_t kMaxQueuedRequests = 4096;

/// A rank's coordinates. rank = dp_rank * tp_size + tp_rank.
struct RankPlace {
  int tp_rank = 0, tp_size = 1;
  int dp_rank = 0, dp_size = 1;
  int rank() const { return dp_rank * tp_size + tp_rank; }
  int num_ranks() const { return tp_size * dp_size; }
};

/// The place of rank `rank` under these options.
RankPlace PlaceOf(const config::ParallelOptions& parallel, int rank);

/// Where experts move: the memory that each rank holds them in.
struct ExpertPlaces {
  int64_t place_bytes = 0;  ///< of one expert; 0: experts stay where they are
  int32_t num_spares = 0;   ///< of each rank
  int32_t max_places = 0;   ///< of the rank with the most, spares included
};

struct ModelSetup {
  config::Launch launch;  ///< which ranks this node runs
  checkpoint::ModelLocation location;
  checkpoint::ModelFiles
      files;  ///< config.json with --hf-overrides, generation_config.json with its override
  model::ModelSpec spec;
  DType type = DType::kBf16;
  bool fp8 = false;  ///< experts and dense linear layers
  kernels::Isa isa = kernels::Isa::kPortable;
  int threads_per_rank = 1;
  bool spin = true;                            ///< threads do not outnumber CPUs
  std::vector<std::vector<int>> cpus_of_rank;  ///< by local rank; empty: not pinned
  int64_t max_model_len = 0;
  std::vector<eplb::ExpertMap> expert_maps;  ///< [MoE layers] where experts lie at the start (expert_start.h)
  ExpertPlaces expert_places;
  engine::MemoryPlanInput memory_input;
  engine::MemoryPlan memory;

  int local_rank(RankPlace place) const { return place.rank() - launch.first_rank; }
  bool is_moe() const { return spec.moe.num_experts > 0; }
};

/// Locates and reads the configuration files, checks the flags against the model and the machine, and plans
/// the memory of the ranks, if any are here. Reads no weights. Errors: one message each, naming the flag or
/// the file.
Result<ModelSetup> PrepareModel(const config::EngineOptions& options);

/// The first half of it: all but `memory` and `memory_input`, for who wants to know a model that does not
/// fit.
Result<ModelSetup> DescribeModel(const config::EngineOptions& options);
/// DescribeModel's part that no number of ranks enters: `launch` and what follows from it are not set.
/// MODEL may also be a config.json, or a folder with nothing else.
Result<ModelSetup> ReadModel(const config::EngineOptions& options);
/// The rest of it, which may be done again with other `parallel` options.
Status LayOut(const config::EngineOptions& options, ModelSetup& setup);

/// How the weights of the linear layers lie in memory, for people: "fp8, a scale a row", "bfloat16".
std::string WeightsText(const ModelSetup& setup);

/// The second half. On kResourceExhausted `memory_input` holds the sizes all the same.
Status PlanMemory(const config::EngineOptions& options, ModelSetup& setup);
/// The same for a host with this memory instead of the own one.
Status PlanMemory(const config::EngineOptions& options, const sys::MemoryInfo& host, ModelSetup& setup);

/// The part of the weights that a rank holds.
model::WeightLayout WeightLayoutOf(const ModelSetup& setup, const config::ParallelOptions& parallel,
                                   RankPlace place, const std::vector<eplb::ExpertMap>& maps);

/// Sizes of a rank's step buffers; the same on all ranks.
Result<model::DecoderOptions> DecoderOptionsOf(const ModelSetup& setup, const config::EngineOptions& options);

/// The exchange's shapes, without device and rendezvous; `layout` of the expert maps. The back ends are named
/// by the options' prefill_backend() and decode_backend().
a2a::Options ExchangeOptionsOf(const ModelSetup& setup, const config::EngineOptions& options,
                               const eplb::SlotLayout& layout);

/// The KV cache's shape on each rank.
kv::Layout KvLayoutOf(const model::ModelSpec& spec, int tp_size, int block_size, DType type);

}  // namespace cadre::deploy
