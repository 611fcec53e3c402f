#include <cmath>

#include "model/families/parts.h"

namespace cadre::model {
namespace {

void ReadYarn(ConfigReader& rope, RopeSpec& spec, int64_t max_position) {
  spec.scaling = RopeScaling::kYarn;
  spec.factor =
      rope.NumberOr("factor", static_cast<double>(max_position) / spec.original_max_position, 1e-3, 1e6);
  // 0 counts as absent, as in the reference library.
  if (const double beta = rope.NumberOr("beta_fast", 32, 0, 1e6); beta > 0) spec.beta_fast = beta;
  if (const double beta = rope.NumberOr("beta_slow", 1, 0, 1e6); beta > 0) spec.beta_slow = beta;
  spec.truncate = rope.BoolOr("truncate", true);
  const double mscale = rope.NumberOr("mscale", 0, 0, 1e3),
               all_dim = rope.NumberOr("mscale_all_dim", 0, 0, 1e3);
  const double from_scale = mscale > 0 && all_dim > 0
                                ? YarnMscale(spec.factor, mscale) / YarnMscale(spec.factor, all_dim)
                                : YarnMscale(spec.factor, 1.0);
  spec.attention_factor = rope.NumberOr("attention_factor", from_scale, 0, 1e3);
}

void ReadLlama3(ConfigReader& rope, RopeSpec& spec) {
  spec.scaling = RopeScaling::kLlama3;
  spec.factor = rope.Number("factor", 1e-3, 1e6);
  spec.low_freq_factor = rope.Number("low_freq_factor", 1e-3, 1e6);
  spec.high_freq_factor = rope.Number("high_freq_factor", 1e-3, 1e6);
  if (spec.high_freq_factor <= spec.low_freq_factor) {
    rope.Refuse("high_freq_factor", Format("values above low_freq_factor ({})", spec.low_freq_factor));
  }
}

void ReadScaling(ConfigReader& config, ConfigReader& rope, int64_t max_position, RopeSpec& spec) {
  const std::string_view type_key = rope.AnyOf({"rope_type", "type"});
  const std::string type = rope.StringOr(type_key, "default");
  const std::string_view original = "original_max_position_embeddings";
  ConfigReader& holder = config.Has(original) ? config : rope;
  spec.original_max_position = holder.NumberOr(original, static_cast<double>(max_position), 1, kMaxPosition);
  if (type == "linear") {
    spec.scaling = RopeScaling::kLinear;
    spec.factor = rope.Number("factor", 1e-3, 1e6);
  } else if (type == "yarn") {
    ReadYarn(rope, spec, max_position);
  } else if (type == "llama3") {
    ReadLlama3(rope, spec);
  } else if (type != "default") {
    rope.Refuse(type_key, "default, linear, llama3, yarn");
  }
}

}  // namespace

double YarnMscale(double factor, double mscale) {
  return factor <= 1 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
}

const Json* FindRopeObject(const ConfigReader& config) {
  const Json* rope = config.Find("rope_scaling");
  return rope ? rope : config.Find("rope_parameters");
}

void ReadRope(ConfigReader& config, int64_t head_dim, double default_theta, int64_t max_position,
              RopeSpec& rope_spec) {
  const Json none = Json::Object();
  const Json* object = FindRopeObject(config);
  const bool in_old_style = config.Has("rope_scaling");
  if (object && !object->is_object()) {
    config.Refuse(in_old_style ? "rope_scaling" : "rope_parameters", "an object or null");
    return;
  }
  ConfigReader rope(object ? *object : none,
                    config.where() + (in_old_style ? ": rope_scaling" : ": rope_parameters"));
  if (rope.Has("full_attention") || rope.Has("sliding_attention")) {
    config.Refuse("rope_parameters", "one set of values for all layers");
  }
  const double theta = config.NumberOr("rope_theta", default_theta, 1e-3, 1e15);
  rope_spec.theta = rope.NumberOr("rope_theta", theta, 1e-3, 1e15);
  const double partial = config.NumberOr("partial_rotary_factor", 1.0, 1e-6, 1.0);
  rope_spec.rotary_dim = static_cast<int32_t>(static_cast<double>(head_dim) *
                                              rope.NumberOr("partial_rotary_factor", partial, 1e-6, 1.0));
  if (rope_spec.rotary_dim < 2 || rope_spec.rotary_dim % 2 != 0) {
    config.Fail({Code::kUnsupported,
                 Format("{}: {} rotary columns a head are not supported; wanted an even number",
                        config.where(), rope_spec.rotary_dim),
                 "head_dim"});
  }
  ReadScaling(config, rope, max_position, rope_spec);
  if (rope.failed()) config.Fail(rope.status().error());
}

void ReadGqa(ConfigReader& config, ModelSpec& spec, double default_theta) {
  AttentionSpec& attention = spec.attention;
  attention.kind = AttentionKind::kGqa;
  attention.num_heads = static_cast<int32_t>(config.Int("num_attention_heads", 1, kMaxHeads));
  attention.num_kv_heads =
      static_cast<int32_t>(config.IntOr("num_key_value_heads", attention.num_heads, 1, attention.num_heads));
  if (attention.num_heads % attention.num_kv_heads != 0) {
    config.Refuse("num_key_value_heads", Format("divisors of the {} attention heads", attention.num_heads));
  }
  if (!config.Has("head_dim") && spec.hidden % attention.num_heads != 0) {
    config.Refuse("num_attention_heads",
                  Format("divisors of hidden_size {} where head_dim is absent", spec.hidden));
  }
  attention.head_dim = attention.v_head_dim = static_cast<int32_t>(
      config.IntOr("head_dim", std::max(1, spec.hidden / attention.num_heads), 2, kMaxHeadDim));
  attention.scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(attention.head_dim)));
  ReadRope(config, attention.head_dim, default_theta, spec.max_position, attention.rope);
  if (!config.failed() && attention.rope.rotary_dim != attention.head_dim) {
    config.Fail({Code::kUnsupported,
                 Format("{}: partial_rotary_factor is not supported for {}", config.where(), spec.family),
                 "partial_rotary_factor"});
  }
}

void ReadMla(ConfigReader& config, ModelSpec& spec) {
  AttentionSpec& attention = spec.attention;
  attention.kind = AttentionKind::kMla;
  attention.num_heads = static_cast<int32_t>(config.Int("num_attention_heads", 1, kMaxHeads));
  attention.num_kv_heads = 1;
  if (int64_t{attention.num_heads} * spec.num_layers() > kMaxHeadsInAll) {
    config.Refuse("num_attention_heads", Format("at most {} in all layers together", kMaxHeadsInAll));
  }
  attention.q_lora_rank = static_cast<int32_t>(config.IntOr("q_lora_rank", 0, 1, kMaxHidden));
  attention.kv_lora_rank = static_cast<int32_t>(config.Int("kv_lora_rank", 1, kMaxHidden));
  attention.qk_nope_dim = static_cast<int32_t>(config.Int("qk_nope_head_dim", 1, kMaxHeadDim));
  attention.qk_rope_dim = static_cast<int32_t>(config.Int("qk_rope_head_dim", 2, kMaxHeadDim));
  attention.v_head_dim = static_cast<int32_t>(config.Int("v_head_dim", 1, kMaxHeadDim));
  attention.head_dim = attention.qk_nope_dim + attention.qk_rope_dim;
  attention.qkv_bias = attention.o_bias = config.BoolOr("attention_bias", false);
  // head_dim in these configs, where it is written, means the rotated part.
  ReadRope(config, attention.qk_rope_dim, 10000.0, spec.max_position, attention.rope);
  if (!config.failed() && attention.rope.rotary_dim != attention.qk_rope_dim) {
    config.Fail({Code::kUnsupported,
                 Format("{}: partial_rotary_factor is not supported for {}", config.where(), spec.family),
                 "partial_rotary_factor"});
  }
  double scale = 1.0 / std::sqrt(static_cast<double>(attention.head_dim));
  if (attention.rope.scaling != RopeScaling::kNone) {
    ConfigReader rope(*FindRopeObject(config), config.where());
    const double mscale = YarnMscale(attention.rope.factor, rope.NumberOr("mscale_all_dim", 0, 0, 1e3));
    scale *= mscale * mscale;  // 1 where mscale_all_dim is absent or 0
  }
  attention.scale = static_cast<float>(scale);
}

}  // namespace cadre::model
