#pragma once
// What a published checkpoint says about its fp8 weights: quantization_config of config.json.
//
// A weight is e4m3 code times scale. The scales lie beside it: "X.weight_scale_inv" or "X.weight_scale" (both
// are multiplied with, whatever the name says), one for the tensor, one a row, or one a block. Which linear
// layers were left as they were is a list of names and patterns.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "checkpoint/hf_config.h"

namespace cadre::model {

struct QuantSpec {
  std::string method;  ///< quant_method: "fp8", "compressed-tensors"; empty: the weights are not quantised
  int32_t block_rows = 0, block_cols = 0;  ///< of a scale; 0: a scale for each tensor or row
  bool static_activations =
      false;                      ///< the checkpoint has scales for activations, which stay as they are here
  std::vector<std::string> skip;  ///< layers left out: names, or "re:" and a pattern

  bool fp8() const { return !method.empty(); }
  /// Whether the linear layer of this name ("model.layers.0.mlp.down_proj") is quantised. Cost: linear in
  /// `skip`.
  bool Quantizes(std::string_view layer) const;
};

/// Reads `quantization_config` (or compressed-tensors' older `compression_config`) if there is one; errors
/// stay in the reader: other methods, types and block shapes are refused by name.
void ReadQuantization(checkpoint::ConfigReader& config, QuantSpec& quant);

/// Whether `pattern` matches the beginning of `text`, as re.match of Python does. Known are characters, '.',
/// sets, \d \w \s, escapes, '*', '+', '?', '^' in front and '$' at the end, and '|' between whole patterns;
/// anything else is an error (kUnsupported). Cost: at most length of pattern times length of text.
Result<bool> MatchesPattern(std::string_view pattern, std::string_view text);

}  // namespace cadre::model
