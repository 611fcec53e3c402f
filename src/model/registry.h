#pragma once
// The families that are known, and the way from config.json to a ModelSpec.
#include <span>
#include <string_view>

#include "base/error.h"
#include "base/json.h"
#include "checkpoint/hf_config.h"
#include "model/spec.h"

namespace cadre::model {

struct Family {
  const char* model_type;    ///< config.json "model_type"
  const char* architecture;  ///< config.json "architectures"[0]
  /// Fills everything that is particular to the family; errors stay in the reader.
  void (*fill)(checkpoint::ConfigReader& config, ModelSpec& spec);
};

std::span<const Family> Families();

/// The family of a config: by architectures, else by model_type; nullptr if none is known.
const Family* FindFamily(const Json& config);

/// Reads a config (both styles: rope_theta/rope_scaling/torch_dtype and rope_parameters/dtype).
/// `generation_config` may be null. Errors: kUnsupported (unknown architecture, with the list of known ones,
/// or a setting that Cadre does not do, by name), kInvalidArgument (impossible values).
Result<ModelSpec> ReadModelSpec(const Json& config, const Json& generation_config);

}  // namespace cadre::model
