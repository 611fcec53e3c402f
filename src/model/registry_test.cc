#include "model/registry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "model/tiny.h"

namespace cadre::model {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// A config of a family with some members changed.
Json Config(const std::string& family, Json::Object changes = {}) {
  TinyOptions options{.family = family};
  Json config = MakeTinyConfig(options);
  for (auto& [key, value] : changes) config.Set(key, std::move(value));
  return config;
}

ModelSpec Read(const Json& config, const Json& generation = {}) {
  auto spec = ReadModelSpec(config, generation);
  EXPECT_TRUE(spec.has_value()) << spec.error().message;
  return spec ? *spec : ModelSpec{};
}

Error Refused(const Json& config) {
  auto spec = ReadModelSpec(config, Json());
  EXPECT_FALSE(spec.has_value()) << config.Dump();
  return spec ? Error{} : spec.error();
}

std::vector<bool> MoeLayers(const ModelSpec& spec) {
  std::vector<bool> moe;
  for (const LayerSpec& layer : spec.layers) moe.push_back(layer.moe);
  return moe;
}

std::vector<int> Windows(const ModelSpec& spec) {
  std::vector<int> windows;
  for (const LayerSpec& layer : spec.layers) windows.push_back(layer.window);
  return windows;
}

TEST(Registry, EveryFamilyReadsItsTinyConfigInBothStyles) {
  for (const Family& family : Families()) {
    for (const bool new_style : {false, true}) {
      TinyOptions options{.family = family.model_type, .new_style = new_style};
      const ModelSpec spec = Read(MakeTinyConfig(options));
      EXPECT_EQ(spec.family, family.model_type);
      EXPECT_EQ(spec.checkpoint_type, DType::kBf16);
      EXPECT_EQ(spec.attention.rope.theta, 10000.0);
      EXPECT_EQ(spec.vocab_size, 96);
      EXPECT_GT(spec.num_parameters(), spec.num_active_parameters() - spec.vocab_size * spec.hidden);
    }
  }
}

TEST(Registry, UnknownArchitectureNamesTheKnownOnes) {
  const Error error = Refused(
      Json::Object{{"architectures", Json::Array{Json("MambaForCausalLM")}}, {"model_type", "mamba"}});
  EXPECT_EQ(error.code, Code::kUnsupported);
  EXPECT_THAT(error.message, HasSubstr("'MambaForCausalLM'"));
  for (const Family& family : Families()) EXPECT_THAT(error.message, HasSubstr(family.architecture));
  // A head that is no language model is another architecture, whatever the type says.
  Refused(Config("qwen3_moe", {{"architectures", Json::Array{Json("Qwen3MoeForSequenceClassification")}}}));
  Refused(Json::Object{});
}

TEST(Registry, ModelTypeDecidesWhereArchitecturesAreAbsent) {
  EXPECT_EQ(Read(Config("olmoe", {{"architectures", Json()}})).architecture, "OlmoeForCausalLM");
}

TEST(Registry, SettingsThatAreNotDoneAreRefusedByName) {
  const std::vector<std::pair<Json, const char*>> cases = {
      {Config("llama", {{"hidden_act", "gelu"}}), "hidden_act"},
      {Config("llama", {{"mlp_bias", true}}), "mlp_bias"},
      {Config("llama", {{"quantization_config", Json::Object{{"quant_method", "gptq"}}}}),
       "quantization_config"},
      {Config("llama", {{"torch_dtype", "int8"}}), "torch_dtype"},
      {Config("llama", {{"partial_rotary_factor", 0.5}}), "partial_rotary_factor"},
      {Config("llama", {{"rope_scaling", Json::Object{{"type", "longrope"}}}}), "type"},
      {Config("llama", {{"rope_scaling", Json::Object{{"rope_type", "dynamic"}, {"factor", 2}}}}),
       "rope_type"},
      {Config("llama", {{"rope_scaling", 3}}), "rope_scaling"},
      {Config("qwen3", {{"rope_parameters", Json::Object{{"full_attention", Json::Object{}}}}}),
       "rope_parameters"},
      {Config("olmoe", {{"clip_qkv", 8.0}}), "clip_qkv"},
      {Config("deepseek_v2", {{"topk_method", "noaux_tc"}}), "topk_method"},
      {Config("deepseek_v2", {{"norm_topk_prob", true}}), "norm_topk_prob"},
      {Config("deepseek_v2", {{"moe_layer_freq", 2}}), "moe_layer_freq"},
      {Config("deepseek_v3", {{"scoring_func", "softmax"}}), "scoring_func"},
      {Config("deepseek_v3", {{"n_group", 4}}), "n_group"},
      {Config("deepseek_v3", {{"n_group", 6}}), "n_group"},
      {Config("deepseek_v3", {{"num_experts_per_tok", 4}}), "num_experts_per_tok"},
      {Config("qwen3", {{"layer_types", Json::Array{Json("full_attention")}}}), "layer_types"},
      {Config("qwen3", {{"layer_types", Json::Array{Json("a"), Json("b"), Json("c")}}}), "layer_types"},
  };
  for (const auto& [config, key] : cases) {
    const Error error = Refused(config);
    EXPECT_EQ(error.code, Code::kUnsupported) << error.message;
    EXPECT_EQ(error.param, key) << error.message;
    EXPECT_THAT(error.message, HasSubstr(key));
    EXPECT_THAT(error.message, HasSubstr("config.json"));
  }
}

TEST(Registry, ImpossibleValuesAreRefusedByName) {
  const std::vector<std::pair<Json::Member, const char*>> cases = {
      {{"hidden_size", 0}, "hidden_size"},
      {{"hidden_size", -64}, "hidden_size"},
      {{"hidden_size", "64"}, "hidden_size"},
      {{"hidden_size", 64.5}, "hidden_size"},
      {{"hidden_size", Json()}, "hidden_size"},
      {{"vocab_size", int64_t{1} << 40}, "vocab_size"},
      {{"num_hidden_layers", 1 << 20}, "num_hidden_layers"},
      {{"num_experts", 1 << 20}, "num_experts"},
      {{"num_experts_per_tok", 7}, "num_experts_per_tok"},
      {{"num_attention_heads", 0}, "num_attention_heads"},
      {{"num_key_value_heads", 5}, "num_key_value_heads"},
      {{"rms_norm_eps", "small"}, "rms_norm_eps"},
      {{"tie_word_embeddings", 1}, "tie_word_embeddings"},
      {{"rope_theta", 0}, "rope_theta"},
      {{"eos_token_id", "</s>"}, "eos_token_id"},
      {{"eos_token_id", Json::Array{Json(1), Json("2")}}, "eos_token_id"},
      {{"mlp_only_layers", Json::Array{Json(-1)}}, "mlp_only_layers"},
      {{"decoder_sparse_step", 0}, "decoder_sparse_step"},
  };
  for (const auto& [member, key] : cases) {
    const Error error = Refused(Config("qwen3_moe", {member}));
    EXPECT_EQ(error.code, Code::kInvalidArgument) << error.message;
    EXPECT_EQ(error.param, key) << error.message;
  }
  EXPECT_EQ(Refused(Config("qwen3_moe", {{"head_dim", 15}})).param, "head_dim");
  EXPECT_EQ(Refused(Config("llama", {{"num_key_value_heads", 3}})).param, "num_key_value_heads");
  EXPECT_EQ(Refused(Config("llama", {{"head_dim", Json()}, {"hidden_size", 50}})).param,
            "num_attention_heads");
}

TEST(Registry, Qwen3Moe) {
  const ModelSpec spec = Read(Config("qwen3_moe", {{"mlp_only_layers", Json::Array{Json(0)}}}));
  EXPECT_THAT(MoeLayers(spec), ElementsAre(false, true, true));
  EXPECT_EQ(spec.attention.qk_norm, QkNorm::kPerHead);
  EXPECT_EQ(spec.attention.scale, 0.25f);
  EXPECT_FALSE(spec.attention.qkv_bias);
  EXPECT_TRUE(spec.moe.normalize);
  EXPECT_EQ(spec.dense_inter, 56);
  EXPECT_THAT(Windows(spec), ElementsAre(0, 0, 0));
  const ModelSpec sparse = Read(Config("qwen3_moe", {{"decoder_sparse_step", 2}}));
  EXPECT_THAT(MoeLayers(sparse), ElementsAre(false, true, false));
  const ModelSpec all = Read(Config("qwen3_moe"));
  EXPECT_EQ(all.dense_inter, 0);
  EXPECT_EQ(all.num_moe_layers(), 3);
  const ModelSpec none = Read(Config("qwen3_moe", {{"decoder_sparse_step", 100}}));
  EXPECT_EQ(none.moe.num_experts, 0);
  // Both spellings of the number of experts; a window only where it is switched on.
  Json local =
      Config("qwen3_moe", {{"num_experts", Json()}, {"num_local_experts", 5}, {"sliding_window", 8}});
  EXPECT_EQ(Read(local).moe.num_experts, 5);
  EXPECT_THAT(Windows(Read(local)), ElementsAre(0, 0, 0));
  local.Set("use_sliding_window", true);
  EXPECT_THAT(Windows(Read(local)), ElementsAre(8, 8, 8));
}

TEST(Registry, Qwen2Moe) {
  const ModelSpec spec = Read(Config("qwen2_moe"));
  EXPECT_TRUE(spec.attention.qkv_bias);
  EXPECT_FALSE(spec.attention.o_bias);
  EXPECT_EQ(spec.attention.qk_norm, QkNorm::kNone);
  EXPECT_EQ(spec.moe.shared_inter, 48);
  EXPECT_TRUE(spec.moe.shared_gate);
  EXPECT_FALSE(spec.moe.normalize);
  EXPECT_FALSE(Read(Config("qwen2_moe", {{"qkv_bias", false}})).attention.qkv_bias);
  // Without layer_types: even layers below max_window_layers slide.
  const Json windowed =
      Config("qwen2_moe", {{"use_sliding_window", true}, {"sliding_window", 8}, {"max_window_layers", 2}});
  EXPECT_THAT(Windows(Read(windowed)), ElementsAre(8, 0, 0));
}

TEST(Registry, Mixtral) {
  const ModelSpec spec = Read(Config("mixtral", {{"sliding_window", 24}}));
  EXPECT_THAT(Windows(spec), ElementsAre(24, 24, 24));
  EXPECT_TRUE(spec.moe.normalize);
  EXPECT_EQ(spec.moe.inter, 24);
  EXPECT_EQ(spec.num_moe_layers(), 3);
  const ModelSpec plain =
      Read(Config("mixtral", {{"sliding_window", Json()}, {"rope_theta", Json()}, {"head_dim", Json()}}));
  EXPECT_THAT(Windows(plain), ElementsAre(0, 0, 0));
  EXPECT_EQ(plain.attention.rope.theta, 1e6);
  EXPECT_EQ(plain.attention.head_dim, 12);
}

TEST(Registry, Olmoe) {
  const ModelSpec spec = Read(Config("olmoe"));
  EXPECT_EQ(spec.attention.qk_norm, QkNorm::kFullRow);
  EXPECT_FALSE(spec.moe.normalize);
}

TEST(Registry, DeepseekV2) {
  const ModelSpec spec = Read(Config("deepseek_v2", {{"routed_scaling_factor", 16.0}}));
  EXPECT_EQ(spec.attention.kind, AttentionKind::kMla);
  EXPECT_TRUE(spec.attention.rope.interleaved);
  EXPECT_EQ(spec.attention.rope.rotary_dim, 8);
  EXPECT_EQ(spec.attention.head_dim, 20);
  EXPECT_EQ(spec.attention.cache_k_dim(), 24);
  EXPECT_EQ(spec.attention.cache_v_dim(), 16);
  EXPECT_EQ(spec.attention.q_lora_rank, 20);
  EXPECT_EQ(spec.attention.latent_norm_eps, 1e-6f);
  EXPECT_THAT(MoeLayers(spec), ElementsAre(false, true, true));
  EXPECT_EQ(spec.moe.score, kernels::RouterScore::kSoftmax);
  EXPECT_EQ(spec.moe.scale, 16.0f);
  EXPECT_EQ(spec.moe.num_groups, 1);
  EXPECT_FALSE(spec.moe.selection_bias);
  const ModelSpec grouped = Read(Config("deepseek_v2", {{"topk_method", "group_limited_greedy"},
                                                        {"n_group", 3},
                                                        {"topk_group", 2},
                                                        {"q_lora_rank", Json()},
                                                        {"n_shared_experts", 2}}));
  EXPECT_EQ(grouped.moe.num_groups, 3);
  EXPECT_EQ(grouped.moe.top_groups, 2);
  EXPECT_EQ(grouped.moe.group_score, kernels::GroupScore::kMax);
  EXPECT_EQ(grouped.attention.q_lora_rank, 0);
  EXPECT_EQ(grouped.moe.shared_inter, 48);
}

TEST(Registry, DeepseekV3) {
  const Json yarn = Json::Object{{"type", "yarn"},
                                 {"factor", 8.0},
                                 {"mscale", 1.0},
                                 {"mscale_all_dim", 1.0},
                                 {"original_max_position_embeddings", 64}};
  const ModelSpec spec = Read(Config("deepseek_v3", {{"rope_scaling", yarn}, {"attention_bias", true}}));
  EXPECT_EQ(spec.moe.score, kernels::RouterScore::kSigmoid);
  EXPECT_TRUE(spec.moe.selection_bias);
  EXPECT_EQ(spec.moe.group_score, kernels::GroupScore::kSumOfTop2);
  EXPECT_EQ(spec.moe.num_groups, 2);
  EXPECT_EQ(spec.moe.top_groups, 1);
  EXPECT_TRUE(spec.moe.normalize);
  EXPECT_EQ(spec.moe.normalize_eps, 1e-20f);
  EXPECT_EQ(spec.moe.scale, 2.5f);
  EXPECT_TRUE(spec.attention.qkv_bias);
  EXPECT_TRUE(spec.attention.o_bias);
  const double mscale = 0.1 * std::log(8.0) + 1;
  EXPECT_NEAR(spec.attention.scale, mscale * mscale / std::sqrt(20.0), 1e-7);
  EXPECT_EQ(spec.attention.rope.attention_factor, 1.0);
  EXPECT_FALSE(Read(Config("deepseek_v3", {{"rope_interleave", false}})).attention.rope.interleaved);
  EXPECT_NEAR(Read(Config("deepseek_v3")).attention.scale, 1 / std::sqrt(20.0), 1e-7);
}

TEST(Registry, DenseFamilies) {
  const ModelSpec llama = Read(Config("llama", {{"num_key_value_heads", Json()}, {"attention_bias", true}}));
  EXPECT_EQ(llama.attention.num_kv_heads, 4);
  EXPECT_TRUE(llama.attention.o_bias);
  EXPECT_EQ(llama.moe.num_experts, 0);
  EXPECT_EQ(llama.dense_inter, 56);
  // Qwen3: layers from max_window_layers on slide, unless layer_types says otherwise.
  Json qwen =
      Config("qwen3", {{"use_sliding_window", true}, {"sliding_window", 8}, {"max_window_layers", 2}});
  EXPECT_THAT(Windows(Read(qwen)), ElementsAre(0, 0, 8));
  qwen.Set("layer_types",
           Json::Array{Json("sliding_attention"), Json("full_attention"), Json("full_attention")});
  EXPECT_THAT(Windows(Read(qwen)), ElementsAre(8, 0, 0));
  // Mistral: a key that is not written means 4096, null means none.
  EXPECT_THAT(Windows(Read(Config("mistral"))), ElementsAre(4096, 4096, 4096));
  EXPECT_THAT(Windows(Read(Config("mistral", {{"sliding_window", Json()}}))), ElementsAre(0, 0, 0));
}

TEST(Registry, EndTokensComeFromBothFiles) {
  const Json generation =
      Json::Object{{"eos_token_id", Json::Array{Json(7), Json(1), Json(-1)}}, {"bos_token_id", 3}};
  const ModelSpec spec = Read(Config("llama", {{"bos_token_id", Json()}}), generation);
  EXPECT_THAT(spec.eos_token_ids, ElementsAre(1, 7));
  EXPECT_EQ(spec.bos_token_id, 3);
  const auto bad = ReadModelSpec(Config("llama"), Json::Object{{"eos_token_id", true}});
  ASSERT_FALSE(bad.has_value());
  EXPECT_THAT(bad.error().message, HasSubstr("generation_config.json: eos_token_id"));
}

TEST(Registry, CountsParameters) {
  // 2 tables of 96 x 48, 3 layers of attention 48 x (4 + 2 + 2) x 16 + 64 x 48, feed-forward 3 x 48 x 56.
  const ModelSpec spec = Read(Config("llama"));
  EXPECT_EQ(spec.num_parameters(), 2 * 96 * 48 + 3 * (48 * 128 + 64 * 48 + 3 * 48 * 56));
  EXPECT_EQ(spec.num_active_parameters(), 96 * 48 + 3 * (48 * 128 + 64 * 48 + 3 * 48 * 56));
}

}  // namespace
}  // namespace cadre::model
