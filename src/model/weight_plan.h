#pragma once
// How large the weights of a rank are and where each of them lies, known before a byte is read.
#include <cstdint>

#include "base/error.h"
#include "model/shard.h"
#include "model/weights.h"

namespace cadre::model {

struct WeightPlan {
  WeightLayout layout;
  ShardShape shard;
  int64_t dense_bytes = 0;   ///< of the dense arena
  int64_t expert_bytes = 0;  ///< of the experts' arena
  /// The dense arena by what it holds; together dense_bytes.
  struct Parts {
    int64_t embedding = 0, lm_head = 0, attention = 0, feed_forward = 0, shared_experts = 0, routers = 0,
            norms = 0;
  } parts;

  int64_t total_bytes() const { return dense_bytes + expert_bytes; }
};

/// Exact sizes, packing and padding included. Errors: as MakeShard. Cost: linear in the number of matrices.
Result<WeightPlan> PlanWeights(const ModelSpec& spec, const WeightLayout& layout);

/// The same walk with addresses: `dense` and `experts` are 64-byte aligned, zeroed, and as long as the plan
/// says (null: the result has shapes alone). The result points into them and is filled by LoadWeights
/// (loader.h); generation stays 0 until then.
ModelWeights PlaceWeights(const ModelSpec& spec, const WeightPlan& plan, std::byte* dense,
                          std::byte* experts);

}  // namespace cadre::model
