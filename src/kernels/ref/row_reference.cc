#include "kernels/ref/row_reference.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace cadre::kernels::ref {
namespace {

// Indices by falling value; of equals the lowest first.
std::vector<int32_t> Order(const std::vector<double>& x) {
  std::vector<int32_t> order(x.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return x[static_cast<size_t>(a)] > x[static_cast<size_t>(b)];
  });
  return order;
}

std::vector<double> Softmax(std::vector<double> x) {
  const double top = *std::max_element(x.begin(), x.end());
  double sum = 0;
  for (double& v : x) sum += v = std::exp(v - top);
  for (double& v : x) v /= sum;
  return x;
}

}  // namespace

std::vector<double> RmsNorm(const float* x, const float* weight, int64_t width, double eps) {
  double sum = 0;
  for (int64_t i = 0; i < width; ++i) sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  std::vector<double> out;
  for (int64_t i = 0; i < width; ++i) {
    out.push_back(static_cast<double>(x[i]) / std::sqrt(sum / static_cast<double>(width) + eps) *
                  static_cast<double>(weight[i]));
  }
  return out;
}

void Rope(double* x, int dim, bool interleaved, const float* cos, const float* sin) {
  for (int i = 0; i < dim / 2; ++i) {
    double& a = interleaved ? x[2 * i] : x[i];
    double& b = interleaved ? x[2 * i + 1] : x[i + dim / 2];
    const double c = static_cast<double>(cos[i]), s = static_cast<double>(sin[i]), old = a;
    a = a * c - b * s;
    b = b * c + old * s;
  }
}

double Silu(double x) {
  return x / (1 + std::exp(-x));
}

Routed Route(const TopKArgs& args, const float* logits) {
  std::vector<double> scores(logits, logits + args.num_experts);
  if (args.score == RouterScore::kSoftmax) scores = Softmax(scores);
  if (args.score == RouterScore::kSigmoid) {
    for (double& s : scores) s = 1 / (1 + std::exp(-s));
  }
  std::vector<double> choice = scores;
  for (size_t e = 0; e < choice.size() && args.selection_bias != nullptr; ++e) {
    choice[e] += static_cast<double>(args.selection_bias[e]);
  }
  if (args.num_groups > 1) {
    const size_t size = choice.size() / static_cast<size_t>(args.num_groups);
    std::vector<double> group_scores;
    for (size_t g = 0; g < static_cast<size_t>(args.num_groups); ++g) {
      std::vector<double> group(choice.begin() + static_cast<ptrdiff_t>(g * size),
                                choice.begin() + static_cast<ptrdiff_t>((g + 1) * size));
      std::sort(group.rbegin(), group.rend());
      group_scores.push_back(group[0] +
                             (args.group_score == GroupScore::kSumOfTop2 && size > 1 ? group[1] : 0));
    }
    const std::vector<int32_t> order = Order(group_scores);
    for (size_t i = static_cast<size_t>(args.top_groups); i < order.size(); ++i) {
      for (size_t e = static_cast<size_t>(order[i]) * size; e < (static_cast<size_t>(order[i]) + 1) * size;
           ++e) {
        if (args.group_score == GroupScore::kMax) {
          choice[e] = scores[e] = 0;
        } else {
          choice[e] = -std::numeric_limits<double>::infinity();
        }
      }
    }
  }
  Routed routed;
  routed.experts = Order(choice);
  routed.experts.resize(static_cast<size_t>(args.top_k));
  for (const int32_t e : routed.experts) routed.weights.push_back(scores[static_cast<size_t>(e)]);
  if (args.score == RouterScore::kSoftmaxAfterTopK) routed.weights = Softmax(routed.weights);
  if (args.normalize) {
    const double sum = std::accumulate(routed.weights.begin(), routed.weights.end(), 0.0);
    for (double& w : routed.weights) w /= sum + static_cast<double>(args.normalize_eps);
  }
  for (double& w : routed.weights) w *= static_cast<double>(args.scale);
  return routed;
}

}  // namespace cadre::kernels::ref
