#pragma once
// adapter_config.json of PEFT: the scale of each pair, and what it asks for that is not supported.
#include <string>
#include <vector>

#include "base/error.h"
#include "base/json.h"

namespace cadre::model {

class AdapterConfig {
 public:
  /// Errors: kNotFound, kDataLoss (no JSON), kUnsupported and kInvalidArgument naming the key.
  static Result<AdapterConfig> Read(const std::string& folder);
  static Result<AdapterConfig> FromJson(const Json& json, const std::string& where);

  /// The rank that a module's pair has, by r and rank_pattern. `module`: "model.layers.0.self_attn.q_proj".
  int64_t RankOf(const std::string& module) const;
  /// lora_alpha (or its pattern) over the rank, or over its root with use_rslora.
  double ScaleOf(const std::string& module) const;

 private:
  struct Pattern {
    std::string name;  // a module's path or the end of one
    double value = 0;
  };
  static Result<std::vector<Pattern>> Patterns(const Json& json, const char* key, const std::string& where,
                                               double min, double max);
  static double Lookup(const std::vector<Pattern>& patterns, const std::string& module, double otherwise);

  double rank_ = 8, alpha_ = 8;
  bool rank_stabilized_ = false;
  std::vector<Pattern> ranks_, alphas_;
};

}  // namespace cadre::model
