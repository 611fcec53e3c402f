#pragma once
// Routers that do not look at the token: for measuring exchanges and balancing under a known load
// (VLLM_MOE_ROUTING_SIMULATION_STRATEGY). The answers of the model are worth nothing then.
//
//   uniform_random       every set of top_k experts is as likely as any other
//   zipf[:S[:DRIFT]]     K experts without replacement, expert e with weight 1 / (1 + e)^S (S 1 unless given),
//                        drawn by Gumbel top-k; so the hot experts come first. Every DRIFT steps the heat moves
//                        on by a third of the experts (0, never, unless given)
//
// A row's choice depends on its token, its position and the layer alone, so that it is the same wherever the
// row is computed.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace cadre::nn {

class SimulatedRouting {
 public:
  /// Errors: kInvalidArgument for another strategy, or numbers out of range (S 0..16, DRIFT 0..2^31).
  static Result<SimulatedRouting> Create(std::string_view strategy, int32_t num_experts, int32_t top_k);
  /// Whether Create would take the strategy, whatever the model.
  static Status Check(std::string_view strategy);

  /// experts [num_rows, top_k], weights the same, all 1 / top_k. Cost: a copy from a table a row.
  void Choose(int64_t step, int32_t layer, int64_t num_rows, const int32_t* token_ids,
              const int32_t* positions, int32_t* experts, float* weights) const;

 private:
  SimulatedRouting() = default;
  int32_t num_experts_ = 0, top_k_ = 0;
  int64_t drift_ = 0;
  std::vector<int32_t> draws_;  // [kDraws, top_k]
};

}  // namespace cadre::nn
