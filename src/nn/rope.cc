#include "nn/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace cadre::nn {
namespace {

// The (fractional) dimension whose wave turns `rotations` times within the original context.
double YarnDimension(const RopeSpec& spec, double rotations) {
  return spec.rotary_dim * std::log(spec.original_max_position / (rotations * 2 * std::numbers::pi)) /
         (2 * std::log(spec.theta));
}

// Fast waves stay, slow ones are stretched by `factor`, a ramp over the dimensions lies between.
void ApplyYarn(const RopeSpec& spec, std::vector<float>& frequencies) {
  double low = YarnDimension(spec, spec.beta_fast), high = YarnDimension(spec, spec.beta_slow);
  if (spec.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(spec.rotary_dim - 1));
  if (low == high) high += 0.001;  // as the reference: no division by zero
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const float ramp = static_cast<float>(std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0));
    const float stretched = frequencies[i] / static_cast<float>(spec.factor);
    frequencies[i] = stretched * ramp + frequencies[i] * (1.0f - ramp);
  }
}

// Waves longer than the original context are stretched, short ones stay, those between are blended.
void ApplyLlama3(const RopeSpec& spec, std::vector<float>& frequencies) {
  const double low_wavelength = spec.original_max_position / spec.low_freq_factor;
  const double high_wavelength = spec.original_max_position / spec.high_freq_factor;
  for (float& f : frequencies) {
    const double wavelength = 2 * std::numbers::pi / f;
    if (wavelength < high_wavelength) continue;
    const float stretched = f / static_cast<float>(spec.factor);
    if (wavelength > low_wavelength) {
      f = stretched;
      continue;
    }
    const double smooth = (spec.original_max_position / wavelength - spec.low_freq_factor) /
                          (spec.high_freq_factor - spec.low_freq_factor);
    f = static_cast<float>((1 - smooth) * stretched + smooth * f);
  }
}

}  // namespace

std::vector<float> RopeInverseFrequencies(const RopeSpec& spec) {
  std::vector<float> frequencies(static_cast<size_t>(spec.rotary_dim / 2));
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const auto exponent = static_cast<float>(2 * i) / static_cast<float>(spec.rotary_dim);
    frequencies[i] = 1.0f / std::pow(static_cast<float>(spec.theta), exponent);
  }
  switch (spec.scaling) {
    case RopeScaling::kNone: break;
    case RopeScaling::kLinear:
      for (float& f : frequencies) f /= static_cast<float>(spec.factor);
      break;
    case RopeScaling::kYarn: ApplyYarn(spec, frequencies); break;
    case RopeScaling::kLlama3: ApplyLlama3(spec, frequencies); break;
  }
  return frequencies;
}

void RopeAngles(std::span<const float> inverse_frequencies, float attention_factor, std::span<const int32_t> positions,
                float* cos, float* sin) {
  for (const int32_t position : positions) {
    for (const float frequency : inverse_frequencies) {
      const float angle = static_cast<float>(position) * frequency;
      *cos++ = std::cos(angle) * attention_factor;
      *sin++ = std::sin(angle) * attention_factor;
    }
  }
}

}  // namespace cadre::nn
