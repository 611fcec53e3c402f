#pragma once
// One pass of tokens through a layer: what every rank does, and one process alone.
#include "a2a/a2a.h"
#include "app/demo/layer.h"
#include "app/demo/ranks.h"
#include "eplb/expert_map.h"

namespace cadre::app::demo {

/// Where a pass leaves what happened.
struct PassArrays {
  int32_t* experts = nullptr;    ///< [rows, top_k]
  float* weights = nullptr;      ///< [rows, top_k]
  int32_t* slot_rows = nullptr;  ///< [local slots], added to
  float* out = nullptr;          ///< [rows, hidden]
};

/// Of a rank with at most `max_rows` tokens among `num_ranks`; without a rendezvous.
a2a::Options ExchangeOptions(const Plan& plan, int64_t max_rows, int num_ranks);

/// Router, dispatch, experts, combine for the tokens that were staged.
Status RunLayer(const Plan& plan, const Layer& layer, const eplb::ExpertMap& map, a2a::AllToAll& exchange,
                int64_t num_rows, const PassArrays& to);

}  // namespace cadre::app::demo
