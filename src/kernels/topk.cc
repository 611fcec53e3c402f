// The order of steps and their constants are those of transformers 5 (DeepSeek-V2, DeepSeek-V3, Qwen,
// gpt-oss).
#include "kernels/topk.h"

#include <limits>
#include <vector>

#include "base/check.h"
#include "kernels/row_threads.h"

namespace cadre::kernels {
namespace {

constexpr float kLowest = -std::numeric_limits<float>::infinity();

// The k best of x, best first; of equals the lowest index. NaN counts as -infinity, so there are always k of
// them.
void BestOf(const float* x, int32_t n, int32_t k, int32_t* index, float* value) {
  int32_t num = 0;
  for (int32_t i = 0; i < n; ++i) {
    const float v = x[i] == x[i] ? x[i] : kLowest;
    if (num == k && !(v > value[k - 1])) continue;
    int32_t at = num < k ? num++ : k - 1;
    for (; at > 0 && v > value[at - 1]; --at) {
      value[at] = value[at - 1];
      index[at] = index[at - 1];
    }
    value[at] = v;
    index[at] = i;
  }
}

float GroupValue(const float* x, int32_t n, GroupScore score) {
  int32_t index[2];
  float value[2];
  const int32_t k = score == GroupScore::kSumOfTop2 && n > 1 ? 2 : 1;
  BestOf(x, n, k, index, value);
  return k == 2 ? value[0] + value[1] : value[0];
}

// Working memory of one row.
struct RowMemory {
  std::vector<float> scores, choice, group_scores, values;
  std::vector<int32_t> groups;
  std::vector<char> kept;

  explicit RowMemory(const TopKArgs& args)
      : scores(static_cast<size_t>(args.num_experts)),
        choice(scores.size()),
        group_scores(static_cast<size_t>(args.num_groups)),
        values(static_cast<size_t>(std::max(args.top_k, args.top_groups))),
        groups(group_scores.size()),
        kept(group_scores.size()) {}
};

// Takes the experts of all groups but the best out of the choice.
void MaskGroups(const TopKArgs& args, RowMemory& memory) {
  const int32_t size = args.num_experts / args.num_groups;
  for (int32_t g = 0; g < args.num_groups; ++g) {
    memory.group_scores[static_cast<size_t>(g)] =
        GroupValue(memory.choice.data() + g * size, size, args.group_score);
  }
  BestOf(memory.group_scores.data(), args.num_groups, args.top_groups, memory.groups.data(),
         memory.values.data());
  std::fill(memory.kept.begin(), memory.kept.end(), 0);
  for (int32_t i = 0; i < args.top_groups; ++i)
    memory.kept[static_cast<size_t>(memory.groups[static_cast<size_t>(i)])] = 1;
  for (int32_t g = 0; g < args.num_groups; ++g) {
    if (memory.kept[static_cast<size_t>(g)]) continue;
    // DeepSeek-V2 (largest of a group) sets the others' scores, and so their weights, to 0; DeepSeek-V3 (sum
    // of the best two, with a bias that may make scores negative) to -infinity for the choice only.
    if (args.group_score == GroupScore::kMax) {
      std::fill_n(memory.choice.begin() + g * size, size, 0.0f);
      std::fill_n(memory.scores.begin() + g * size, size, 0.0f);
    } else {
      std::fill_n(memory.choice.begin() + g * size, size, kLowest);
    }
  }
}

void Route(const TopKArgs& args, const RowKernels& kernels, int64_t row, RowMemory& memory) {
  const float* logits = args.logits + row * args.num_experts;
  int32_t* experts = args.experts + row * args.top_k;
  float* weights = args.weights + row * args.top_k;
  float* scores = memory.scores.data();
  switch (args.score) {
    case RouterScore::kSoftmax:
      kernels.softmax(logits, args.num_experts, scores);
      break;
    case RouterScore::kSigmoid:
      kernels.sigmoid(logits, args.num_experts, scores);
      break;
    case RouterScore::kSoftmaxAfterTopK:
      std::copy_n(logits, args.num_experts, scores);
      break;
  }
  const float* choice = scores;
  if (args.selection_bias != nullptr || args.num_groups > 1) {
    for (int32_t e = 0; e < args.num_experts; ++e) {
      memory.choice[static_cast<size_t>(e)] =
          scores[e] + (args.selection_bias == nullptr ? 0.0f : args.selection_bias[e]);
    }
    if (args.num_groups > 1) MaskGroups(args, memory);
    choice = memory.choice.data();
  }
  BestOf(choice, args.num_experts, args.top_k, experts, memory.values.data());
  for (int32_t k = 0; k < args.top_k; ++k) weights[k] = scores[experts[k]];
  if (args.score == RouterScore::kSoftmaxAfterTopK) kernels.softmax(weights, args.top_k, weights);
  if (args.normalize) {
    float sum = 0;
    for (int32_t k = 0; k < args.top_k; ++k) sum += weights[k];
    sum += args.normalize_eps;
    for (int32_t k = 0; k < args.top_k; ++k) weights[k] /= sum;
  }
  for (int32_t k = 0; k < args.top_k; ++k) weights[k] *= args.scale;
}

}  // namespace

void RouterTopK(const Device& device, const TopKArgs& args) {
  CADRE_CHECK(args.top_k >= 1 && args.top_k <= args.num_experts);
  CADRE_CHECK(args.num_groups >= 1 && args.num_experts % args.num_groups == 0);
  CADRE_CHECK(args.top_groups >= 1 && args.top_groups <= args.num_groups);
  const RowKernels& kernels = RowKernelsFor(device.isa);
  // About 1.5 ns an expert: its score and one comparison.
  ForRows(device, args.num_rows, 1.5 * args.num_experts, [&](int64_t begin, int64_t end) {
    RowMemory memory(args);
    for (int64_t t = begin; t < end; ++t) Route(args, kernels, t, memory);
  });
}

}  // namespace cadre::kernels
