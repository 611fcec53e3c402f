#include "model/families/parts.h"

#include <algorithm>

namespace cadre::model {
namespace {

DType ReadType(ConfigReader& config) {
  const std::string_view key = config.AnyOf({"dtype", "torch_dtype"});
  std::string name = config.StringOr(key, "float32");
  if (name.starts_with("torch.")) name = name.substr(6);
  if (name == "bfloat16") return DType::kBf16;
  if (name == "float16") return DType::kF16;
  if (name != "float32") config.Refuse(key, "bfloat16, float16, float32");
  return DType::kF32;
}

}  // namespace

void RequireOnly(ConfigReader& config, std::string_view key, const Json& only) {
  const Json* value = config.Find(key);
  if (value && *value != only) config.Refuse(key, only.Dump());
}

void ReadBase(ConfigReader& config, ModelSpec& spec) {
  ReadQuantization(config, spec.quant);
  const std::string act = config.StringOr("hidden_act", "silu");
  if (act != "silu" && act != "swish") config.Refuse("hidden_act", "\"silu\"");
  spec.checkpoint_type = ReadType(config);
  spec.vocab_size = config.Int("vocab_size", 1, kMaxVocab);
  spec.hidden = static_cast<int32_t>(config.Int("hidden_size", 1, kMaxHidden));
  spec.layers.resize(static_cast<size_t>(config.Int("num_hidden_layers", 1, kMaxLayers)));
  spec.max_position = config.Int("max_position_embeddings", 1, kMaxPosition);
  spec.rms_eps = static_cast<float>(config.Number("rms_norm_eps", 0.0, 1.0));
  spec.tie_embeddings = config.BoolOr("tie_word_embeddings", false);
  spec.bos_token_id = static_cast<int32_t>(config.IntOr("bos_token_id", -1, -1, kMaxVocab));
  for (const int64_t token : config.Ints("eos_token_id", -1, kMaxVocab)) {
    if (token >= 0) spec.eos_token_ids.push_back(static_cast<int32_t>(token));
  }
}

void ReadDenseInter(ConfigReader& config, ModelSpec& spec) {
  const bool any =
      std::any_of(spec.layers.begin(), spec.layers.end(), [](const LayerSpec& l) { return !l.moe; });
  if (any) spec.dense_inter = static_cast<int32_t>(config.Int("intermediate_size", 1, kMaxInter));
}

void ReadExperts(ConfigReader& config, ModelSpec& spec,
                 std::initializer_list<std::string_view> num_experts_keys, std::string_view inter_key) {
  MoeSpec& moe = spec.moe;
  const std::string_view key = config.AnyOf(num_experts_keys);
  const int64_t most = std::min(kMaxExperts, kMaxExpertsInAll / spec.num_layers());
  moe.num_experts = static_cast<int32_t>(config.Int(key, 1, most));
  moe.top_k = static_cast<int32_t>(config.Int("num_experts_per_tok", 1, moe.num_experts));
  moe.inter = static_cast<int32_t>(config.Int(inter_key, 1, kMaxInter));
}

void ReadGroups(ConfigReader& config, ModelSpec& spec) {
  MoeSpec& moe = spec.moe;
  moe.num_groups = static_cast<int32_t>(config.IntOr("n_group", 1, 1, moe.num_experts));
  moe.top_groups = static_cast<int32_t>(config.IntOr("topk_group", 1, 1, moe.num_groups));
  const int32_t group_size = moe.num_experts / moe.num_groups;
  if (moe.num_experts % moe.num_groups != 0) {
    config.Refuse("n_group", Format("divisors of the {} experts", moe.num_experts));
  } else if (moe.group_score == kernels::GroupScore::kSumOfTop2 && group_size < 2) {
    config.Refuse("n_group", "groups of two experts or more");
  } else if (moe.top_k > moe.top_groups * group_size) {
    config.Refuse("num_experts_per_tok",
                  Format("at most the {} experts of {} groups", moe.top_groups * group_size, moe.top_groups));
  }
}

void MarkQwenMoeLayers(ConfigReader& config, ModelSpec& spec) {
  const int64_t step = config.IntOr("decoder_sparse_step", 1, 1, kMaxLayers);
  const std::vector<int64_t> dense = config.Ints("mlp_only_layers", 0, kMaxLayers);
  for (int64_t i = 0; i < spec.num_layers(); ++i) {
    const bool listed = std::find(dense.begin(), dense.end(), i) != dense.end();
    spec.layers[static_cast<size_t>(i)].moe = !listed && (i + 1) % step == 0;
  }
}

void MarkDeepseekMoeLayers(ConfigReader& config, ModelSpec& spec) {
  const int64_t first = config.IntOr("first_k_dense_replace", 0, 0, kMaxLayers);
  for (int64_t i = 0; i < spec.num_layers(); ++i) spec.layers[static_cast<size_t>(i)].moe = i >= first;
}

void ReadWindowOfAllLayers(ConfigReader& config, ModelSpec& spec, int32_t fallback) {
  const int64_t absent = config.IsAbsent("sliding_window") ? fallback : 0;
  const auto window = static_cast<int32_t>(config.IntOr("sliding_window", absent, 1, kMaxPosition - 1));
  for (LayerSpec& layer : spec.layers) layer.window = window;
}

void ReadQwenWindows(ConfigReader& config, ModelSpec& spec,
                     bool (*is_sliding)(int64_t layer, int64_t max_layers)) {
  const bool use = config.BoolOr("use_sliding_window", false);
  const auto window =
      static_cast<int32_t>(use ? config.IntOr("sliding_window", 4096, 1, kMaxPosition - 1) : 0);
  const int64_t max_layers = config.IntOr("max_window_layers", 28, 0, kMaxPosition);
  const auto types = config.Strings("layer_types");
  if (types && types->size() != spec.layers.size()) {
    config.Refuse("layer_types", Format("a list of {} entries, one a layer", spec.layers.size()));
    return;
  }
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    bool slides = is_sliding(static_cast<int64_t>(i), max_layers);
    if (types) {
      slides = (*types)[i] == "sliding_attention";
      if (!slides && (*types)[i] != "full_attention") {
        config.Refuse("layer_types", "\"full_attention\", \"sliding_attention\"");
      }
      if (slides && window == 0)
        config.Refuse("layer_types", "\"full_attention\" without use_sliding_window");
    }
    spec.layers[i].window = slides ? window : 0;
  }
}

}  // namespace cadre::model
