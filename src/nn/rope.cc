#include "nn/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace cadre::nn {
namespace {

constexpr double kTurn = 2 * std::numbers::pi;

// YaRN: pairs that turn more than beta_fast times over the original context keep their step, those that turn
// less than beta_slow times are stretched by the factor, the ones between are mixed along a ramp.
void ScaleYarn(const RopeSpec& rope, std::vector<double>& steps) {
  const double dim = rope.rotary_dim;
  const auto border = [&](double turns) {
    return dim * std::log(rope.original_max_position / (turns * kTurn)) / (2 * std::log(rope.theta));
  };
  double low = border(rope.beta_fast), high = border(rope.beta_slow);
  if (rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, dim - 1);
  if (low == high) high += 0.001;
  for (size_t i = 0; i < steps.size(); ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    steps[i] = steps[i] / rope.factor * ramp + steps[i] * (1 - ramp);
  }
}

// Llama 3.1: long waves are stretched by the factor, short ones kept, those between mixed by their length.
void ScaleLlama3(const RopeSpec& rope, std::vector<double>& steps) {
  for (double& step : steps) {
    const double turns = rope.original_max_position * step / kTurn;  // over the original context
    if (turns < rope.low_freq_factor) {
      step /= rope.factor;
    } else if (turns <= rope.high_freq_factor) {
      const double keep = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
      step = (1 - keep) * step / rope.factor + keep * step;
    }
  }
}

}  // namespace

std::vector<float> RopeInverseFrequencies(const RopeSpec& rope) {
  std::vector<double> steps(static_cast<size_t>(rope.rotary_dim / 2));
  for (size_t i = 0; i < steps.size(); ++i) {
    steps[i] = std::pow(rope.theta, -2.0 * static_cast<double>(i) / rope.rotary_dim);
  }
  switch (rope.scaling) {
    case RopeScaling::kNone:
      break;
    case RopeScaling::kLinear:
      for (double& step : steps) step /= rope.factor;
      break;
    case RopeScaling::kYarn:
      ScaleYarn(rope, steps);
      break;
    case RopeScaling::kLlama3:
      ScaleLlama3(rope, steps);
      break;
  }
  return {steps.begin(), steps.end()};
}

void RopeAngles(std::span<const float> inverse_frequencies, float attention_factor,
                std::span<const int32_t> positions, float* cos, float* sin) {
  for (const int32_t position : positions) {
    for (const float frequency : inverse_frequencies) {
      const float angle = static_cast<float>(position) * frequency;
      *cos++ = std::cos(angle) * attention_factor;
      *sin++ = std::sin(angle) * attention_factor;
    }
  }
}

}  // namespace cadre::nn
