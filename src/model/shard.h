#pragma once
// Which part of every weight a rank holds.
//
//   attention    heads split over tp (must divide); fewer KV heads than tp: each is held by tp / num_kv_heads
//   ranks dense, shared expert   intermediate columns split over tp, contiguous, uneven allowed experts with
//   EP: whole, by the list of slots; without: all of them, intermediate columns split over tp x dp lm_head
//   rows split over tp; embedding table, router, norms: on every rank
//
// An uneven split gives the first (total mod parts) ranks one more, so that shares differ by one at most.
#include <cstdint>
#include <vector>

#include "base/error.h"
#include "model/spec.h"

namespace cadre::model {

struct Range {
  int64_t begin = 0, end = 0;
  int64_t size() const { return end - begin; }
  friend bool operator==(const Range&, const Range&) = default;
};

/// Share `index` of `total` things cut into `parts` contiguous ranges.
Range SplitRange(int64_t total, int64_t parts, int64_t index);

struct WeightLayout {
  DType type = DType::kBf16;  ///< kBf16 or kF32
  /// Experts and dense linear layers as e4m3: as the checkpoint has them, or quantised as they are read, with
  /// a scale a row. Never the head, the embedding, routers, norms, and the matrices that latent attention
  /// absorbs.
  bool fp8 = false;
  int32_t tp_rank = 0, tp_size = 1;
  int32_t ep_rank = 0, ep_size = 1;  ///< the rank among all tp x dp ranks: dp_rank * tp_size + tp_rank
  bool enable_ep = false;
  /// With EP: for each MoE layer (counted among MoE layers) the logical expert of each local slot; -1 leaves
  /// a spare slot empty. Empty: experts in order, split over ep_size, the same in every layer.
  std::vector<std::vector<int32_t>> slots = {};
};

/// Local sizes.
struct ShardShape {
  Range heads;        ///< global query heads
  Range kv_heads;     ///< global KV heads (kMla: [0, 1))
  Range dense_inter;  ///< intermediate columns of a dense layer
  Range shared_inter;
  Range expert_inter;                       ///< all of them with EP
  Range vocab;                              ///< rows of lm_head
  std::vector<std::vector<int32_t>> slots;  ///< [MoE layers][local slots] logical experts
};

/// Errors: kInvalidArgument where heads, or anything else that must, do not divide: names config key and
/// flag.
Result<ShardShape> MakeShard(const ModelSpec& spec, const WeightLayout& layout);

}  // namespace cadre::model
