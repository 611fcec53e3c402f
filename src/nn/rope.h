#pragma once
// Rotary position embedding: the angles. The rotation itself is kernels/elementwise.h's Rope.
#include <cstdint>
#include <span>
#include <vector>

#include "nn/spec.h"

namespace cadre::nn {

/// Inverse frequencies [rotary_dim / 2], with the scaling that long-context checkpoints ask for, computed in
/// f32 as the reference library does. Sources: Su et al. 2021 (RoPE); Peng et al. 2023 (YaRN); Llama 3.1's
/// model card.
std::vector<float> RopeInverseFrequencies(const RopeSpec& spec);

/// cos and sin [T, rotary_dim / 2] of position * inverse frequency, times the attention factor.
void RopeAngles(std::span<const float> inverse_frequencies, float attention_factor,
                std::span<const int32_t> positions, float* cos, float* sin);

}  // namespace cadre::nn
