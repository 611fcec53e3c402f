#pragma once
// The router's choice: which experts a token goes to, and with which weights. f32, rows independent.
#include <cstdint>

#include "kernels/device.h"

namespace cadre::kernels {

enum class RouterScore : uint8_t {
  kSoftmax,           ///< softmax over all experts, then top-k
  kSigmoid,           ///< sigmoid of each logit, then top-k
  kSoftmaxAfterTopK,  ///< top-k of the logits, softmax over those (gpt-oss, granite)
};

/// How a group of experts is ranked before experts are chosen from the best groups.
enum class GroupScore : uint8_t { kMax, kSumOfTop2 };

struct TopKArgs {
  int64_t num_rows = 0;
  int32_t num_experts = 0, top_k = 0;
  const float* logits = nullptr;  ///< [num_rows, num_experts]
  RouterScore score = RouterScore::kSoftmax;
  const float* selection_bias = nullptr;  ///< [num_experts] added to the scores for choosing only, or null
  int32_t num_groups = 1, top_groups = 1;
  GroupScore group_score = GroupScore::kMax;
  bool normalize = false;      ///< divide the chosen weights by their sum
  float normalize_eps = 0.0f;  ///< added to that sum (DeepSeek-V3: 1e-20)
  float scale = 1.0f;          ///< then multiply
  int32_t* experts = nullptr;  ///< out [num_rows, top_k], best first; ties: lowest expert first
  float* weights = nullptr;    ///< out [num_rows, top_k]
};
/// NaN counts as the lowest score, so the chosen experts are always in range and distinct. Groups are masked
/// as transformers 5 does: kMax (DeepSeek-V2) sets the scores of the other groups to 0, weights included;
/// kSumOfTop2 (DeepSeek-V3) bars them from the choice. Needs top_k <= num_experts and num_groups that divide
/// num_experts.
void RouterTopK(const Device& device, const TopKArgs& args);

}  // namespace cadre::kernels
