#pragma once
// Parts of config.json that families share. Each reads its keys into the spec; errors stay in the reader.
// Meanings and defaults are those of transformers 5.
#include <cstdint>
#include <initializer_list>
#include <string_view>

#include "checkpoint/hf_config.h"
#include "model/spec.h"

namespace cadre::model {

using checkpoint::ConfigReader;

/// Bounds on what a config may ask for, so that no product of sizes leaves 63 bits and no list grows without
/// end.
constexpr int64_t kMaxHidden = 1 << 17;
constexpr int64_t kMaxInter = 1 << 20;
constexpr int64_t kMaxHeads = 1 << 12;
constexpr int64_t kMaxHeadsInAll = 1 << 18;  ///< over all layers, where each has matrices of its own (kMla)
constexpr int64_t kMaxHeadDim = 1 << 12;
constexpr int64_t kMaxLayers = 1 << 10;
constexpr int64_t kMaxExperts = 1 << 13;
constexpr int64_t kMaxExpertsInAll = 1 << 18;  ///< over all layers
constexpr int64_t kMaxVocab = 1 << 24;
constexpr int64_t kMaxPosition = int64_t{1} << 31;

/// Sizes, norm, activation, type, tokens: what every decoder has. Makes spec.layers: all dense, no window.
void ReadBase(ConfigReader& config, ModelSpec& spec);

/// Heads, head_dim (or hidden / heads), scale, rotary embedding over the whole head.
void ReadGqa(ConfigReader& config, ModelSpec& spec, double default_theta = 10000.0);

/// DeepSeek's latent attention. Biases and interleaving are the family's.
void ReadMla(ConfigReader& config, ModelSpec& spec);

/// rope_theta and rope_scaling, or rope_parameters, for heads of head_dim columns.
void ReadRope(ConfigReader& config, int64_t head_dim, double default_theta, int64_t max_position,
              RopeSpec& rope);

/// The object with the rotary settings: rope_scaling, else rope_parameters, else nullptr.
const Json* FindRopeObject(const ConfigReader& config);

/// 0.1 * mscale * ln(factor) + 1, and 1 where nothing is stretched (YaRN).
double YarnMscale(double factor, double mscale);

/// intermediate_size into dense_inter, if a layer is dense. Call it after the layers are marked.
void ReadDenseInter(ConfigReader& config, ModelSpec& spec);

/// Experts, top-k and size, each from the first of the keys that is there.
void ReadExperts(ConfigReader& config, ModelSpec& spec,
                 std::initializer_list<std::string_view> num_experts_keys, std::string_view inter_key);

/// The routing groups of DeepSeek: n_group, topk_group (null: one group).
void ReadGroups(ConfigReader& config, ModelSpec& spec);

/// The rule of Qwen: MoE where the layer is not in mlp_only_layers and (i + 1) % decoder_sparse_step == 0.
void MarkQwenMoeLayers(ConfigReader& config, ModelSpec& spec);
/// The rule of DeepSeek: MoE from layer first_k_dense_replace on.
void MarkDeepseekMoeLayers(ConfigReader& config, ModelSpec& spec);

/// sliding_window for every layer; null: none; `fallback` where the key is not written (0: none).
void ReadWindowOfAllLayers(ConfigReader& config, ModelSpec& spec, int32_t fallback);
/// The rule of Qwen: only with use_sliding_window; in the layers that layer_types calls "sliding_attention"
/// or, without that list, where is_sliding(layer, max_window_layers) says so.
void ReadQwenWindows(ConfigReader& config, ModelSpec& spec,
                     bool (*is_sliding)(int64_t layer, int64_t max_layers));

/// Refuses a config in which `key` is there, not null, and not `only`.
void RequireOnly(ConfigReader& config, std::string_view key, const Json& only);

// One a family: families/<name>.cc.
void FillQwen3Moe(ConfigReader& config, ModelSpec& spec);
void FillQwen2Moe(ConfigReader& config, ModelSpec& spec);
void FillMixtral(ConfigReader& config, ModelSpec& spec);
void FillOlmoe(ConfigReader& config, ModelSpec& spec);
void FillDeepseekV2(ConfigReader& config, ModelSpec& spec);
void FillDeepseekV3(ConfigReader& config, ModelSpec& spec);
void FillQwen3(ConfigReader& config, ModelSpec& spec);
void FillLlama(ConfigReader& config, ModelSpec& spec);
void FillMistral(ConfigReader& config, ModelSpec& spec);

}  // namespace cadre::model
