#pragma once
// The ranks of `cadre demo`: each a process of its own with its share of the experts. They run one expert
// layer over the real exchange; then this process, alone and with all experts, computes the same tokens to
// compare.
#include <cstdint>
#include <string>
#include <vector>

#include "a2a/a2a.h"
#include "app/demo/layer.h"
#include "base/error.h"
#include "eplb/placement.h"

namespace cadre::app::demo {

struct Plan {
  Shape shape;
  int num_ranks = 2;
  std::string backend = "allgather_reducescatter";
  eplb::Placement placement = eplb::Placement::kLinear;
  kernels::Isa isa = kernels::Isa::kPortable;
  Duration timeout = std::chrono::seconds(60);  ///< of a wait between ranks
};

/// What one rank did, in its own words.
struct RankReport {
  std::vector<int32_t> held;       ///< the experts it holds
  int64_t expert_bytes = 0;        ///< of their weights as they lie in its memory
  std::vector<int32_t> experts;    ///< [num_tokens, top_k] that its router chose
  std::vector<float> weights;      ///< [num_tokens, top_k]
  std::vector<int32_t> slot_rows;  ///< [held] rows that came for each
  a2a::ByteCounts bytes;           ///< that it drew from other ranks
  std::string exchange;            ///< the exchange's description of itself
  std::vector<float> out;          ///< [num_tokens, hidden]
};

/// Rows that a rank's tokens cause on another rank.
struct Traffic {
  int64_t rows = 0;   ///< tokens with an expert there: a row travels once
  int64_t pairs = 0;  ///< (token, expert) pairs there
};

struct Outcome {
  std::vector<RankReport> ranks;
  std::vector<std::vector<Traffic>> traffic;  ///< [from][to]; to == from stays home
  // Against one process:
  int64_t all_expert_bytes = 0;
  int64_t num_different = 0;  ///< numbers whose bits differ
  double largest_difference = 0;
  double largest_output = 0;
  double worst_share = 0;  ///< the largest difference as a share of its own bound (see CheckAlone); at most 1
};

/// Errors: kInvalidArgument for shapes and names that do not fit together, kResourceExhausted where memory
/// does not suffice, kUnavailable with the rank at fault, kInternal if the results are not what they must be.
Result<Outcome> RunDemo(const Plan& plan);

}  // namespace cadre::app::demo
