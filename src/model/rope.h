#pragma once
// The rotary table: one angle step a pair of columns.
#include <vector>

#include "model/spec.h"

namespace cadre::model {

/// Angle per position for each pair, [rotary_dim / 2], scaling included: the pair i of a row at position p
/// turns by p * f[i], and cos and sin are then multiplied with rope.attention_factor. Rounded to f32 as the
/// reference library holds them. Source: "RoFormer", "YaRN" (Peng et al., 2023), Llama 3.1's published
/// scaling.
std::vector<float> RopeInverseFrequencies(const RopeSpec& rope);

}  // namespace cadre::model
