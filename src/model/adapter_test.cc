#include "model/adapter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "checkpoint/hf_config.h"
#include "kernels/isa.h"
#include "model/adapter_config.h"
#include "model/adapter_testing.h"
#include "model/decoder_testing.h"
#include "model/registry.h"
#include "model/tiny.h"
#include "model/weights_testing.h"

namespace cadre::model {
namespace {

using test::Tensors;
using test::TestAdapter;
using testing::HasSubstr;

const std::vector<std::string> kKinds = {
    "q_proj",   "k_proj",    "v_proj",  "o_proj",    "q_a_proj",
    "q_b_proj", "gate_proj", "up_proj", "down_proj", "kv_a_proj_with_mqa"};
constexpr double kScale = 12.0 / 4;  // of TestAdapter's config

// A tiny f32 checkpoint and an adapter on all that can have one.
class AdapterTest : public testing::Test {
 protected:
  void Make(const std::string& family, Json extra = {}) {
    std::filesystem::create_directories(base());
    ASSERT_TRUE(
        WriteTinyCheckpoint(base(), {.family = family, .type = DType::kF32, .extra = std::move(extra)})
            .has_value());
    checkpoint_ = Tensors::Read(base());
    adapter_.tensors.all.clear();
    adapter_.AddAll(checkpoint_, kKinds, 4, rng_);
    adapter_.Write(folder());
  }
  std::string base() const { return root_.path() + "/base"; }
  std::string folder() const { return root_.path() + "/adapter"; }

  Result<std::unique_ptr<LoadedAdapter>> Load(const WeightLayout& layout = {.type = DType::kF32},
                                              int64_t max_rank = 16) {
    const auto files = *checkpoint::ReadModelFiles(base());
    spec_ = *ReadModelSpec(files.config, files.generation_config);
    plan_ = *PlanWeights(spec_, layout);
    return LoadAdapter(spec_, plan_, folder(), max_rank);
  }
  std::string Refusal(int64_t max_rank = 16) {
    adapter_.Write(folder());
    auto loaded = Load({.type = DType::kF32}, max_rank);
    return loaded ? "accepted" : loaded.error().message;
  }

  test::TempFolder root_;
  std::mt19937 rng_{7};
  Tensors checkpoint_;
  TestAdapter adapter_;
  ModelSpec spec_;
  WeightPlan plan_;
};

std::vector<int32_t> AllRows(size_t count) {
  std::vector<int32_t> rows(count);
  std::iota(rows.begin(), rows.end(), 0);
  return rows;
}

// The model with the adapter beside it computes what the model with the adapter merged into it computes; the
// merge is the test's own. Every family of attention and of dense layers.
TEST_F(AdapterTest, EqualsTheMergedCheckpoint) {
  for (const std::string family : {"llama", "qwen3_moe", "qwen2_moe", "mixtral", "olmoe", "deepseek_v2",
                                   "deepseek_v3", "qwen3", "mistral"}) {
    SCOPED_TRACE(family);
    Make(family);
    Tensors merged = checkpoint_;
    adapter_.MergeInto(merged, kScale);
    std::filesystem::create_directories(root_.path() + "/merged");
    std::filesystem::copy(base() + "/config.json", root_.path() + "/merged/config.json",
                          std::filesystem::copy_options::overwrite_existing);
    merged.Write(root_.path() + "/merged/model.safetensors");
    auto loaded = Load();
    ASSERT_TRUE(loaded.has_value()) << loaded.error().message;
    const std::vector<int32_t> tokens = {5, 17, 3, 88, 41, 9, 60, 2, 33, 70};
    test::Rig with(base(), DType::kF32, kernels::BestIsa(), 1);
    test::Rig without(base(), DType::kF32, kernels::BestIsa(), 1);
    test::Rig wanted(root_.path() + "/merged", DType::kF32, kernels::BestIsa(), 1);
    const std::vector<int32_t> rows = AllRows(tokens.size());
    const nn::AdapterRows use{.adapter = &(*loaded)->weights, .rows = rows};
    const std::vector<float> got = with.Run(tokens, 0, {&use, 1}), other = wanted.Run(tokens, 0),
                             plain = without.Run(tokens, 0);
    double off = 0, moved = 0;
    for (size_t i = 0; i < got.size(); ++i) {
      off = std::max(off, std::abs(static_cast<double>(got[i]) - other[i]));
      moved = std::max(moved, std::abs(static_cast<double>(got[i]) - plain[i]));
    }
    EXPECT_LT(off, 2e-3);
    EXPECT_GT(moved, 0.1);
  }
}

// This rank's parts, against rows and columns of the file.
TEST_F(AdapterTest, CutsEachPairAsItsWeightIsCut) {
  Make("qwen2_moe", Json(Json::Object{{"shared_expert_intermediate_size", 25}}));
  const auto unpack = [](const kernels::PackedMatrix& matrix) {
    std::vector<float> rows(static_cast<size_t>(matrix.n * matrix.k));
    kernels::UnpackRows(matrix, 0, matrix.n, rows.data(), matrix.k);
    return rows;
  };
  for (const int tp : {1, 2, 4}) {
    for (int rank = 0; rank < tp; ++rank) {
      SCOPED_TRACE(Format("tp {} of {}", rank, tp));
      const auto loaded = Load({.type = DType::kF32,
                                .tp_rank = rank,
                                .tp_size = tp,
                                .ep_rank = rank,
                                .ep_size = tp,
                                .enable_ep = true});
      ASSERT_TRUE(loaded.has_value()) << loaded.error().message;
      EXPECT_EQ((*loaded)->max_rank, 4);
      const nn::LayerAdapter& layer = (*loaded)->weights.layers[1];
      const auto check = [&](const nn::LowRank& low_rank, size_t part, const std::string& module,
                             Range outputs, Range inputs) {
        SCOPED_TRACE(module);
        const Tensors::One& a = adapter_.tensors.all.at(TestAdapter::NameOf(module, 'A'));
        const Tensors::One& b = adapter_.tensors.all.at(TestAdapter::NameOf(module, 'B'));
        const nn::LowRankPart& p = low_rank.parts.at(part);
        ASSERT_EQ(p.b.n, outputs.size());
        ASSERT_EQ(low_rank.a.k, inputs.size());
        const std::vector<float> got_a = unpack(low_rank.a), got_b = unpack(p.b);
        for (int64_t r = 0; r < 4; ++r) {
          for (int64_t c = 0; c < inputs.size(); ++c)
            ASSERT_EQ(got_a[static_cast<size_t>((p.first_rank + r) * inputs.size() + c)],
                      a.values[static_cast<size_t>(r * a.shape[1] + inputs.begin + c)]);
          for (int64_t n = 0; n < outputs.size(); ++n)
            ASSERT_EQ(
                got_b[static_cast<size_t>(n * 4 + r)],
                static_cast<float>(kScale * b.values[static_cast<size_t>((outputs.begin + n) * 4 + r)]));
        }
      };
      const ShardShape& shard = plan_.shard;
      const auto heads = [&](Range range) { return Range{range.begin * 16, range.end * 16}; };
      const Range all = {0, spec_.hidden};
      const std::string at = "model.layers.1.";
      check(layer.qkv, 0, at + "self_attn.q_proj", heads(shard.heads), all);
      check(layer.qkv, 1, at + "self_attn.k_proj", heads(shard.kv_heads), all);
      check(layer.qkv, 2, at + "self_attn.v_proj", heads(shard.kv_heads), all);
      EXPECT_EQ(layer.qkv.parts[2].first_output, (shard.heads.size() + shard.kv_heads.size()) * 16);
      check(layer.o, 0, at + "self_attn.o_proj", all, heads(shard.heads));
      check(layer.gate_up, 0, at + "mlp.shared_expert.gate_proj", shard.shared_inter, all);
      check(layer.gate_up, 1, at + "mlp.shared_expert.up_proj", shard.shared_inter, all);
      EXPECT_EQ(layer.gate_up.parts[1].first_output, shard.shared_inter.size());
      check(layer.down, 0, at + "mlp.shared_expert.down_proj", all, shard.shared_inter);
    }
  }
}

// What two servers compare: equal where the pairs and their scales are, on every rank of every layout.
TEST_F(AdapterTest, TheDigestIsThatOfTheContent) {
  Make("qwen2_moe");
  const auto digest = [&](int tp_rank = 0, int tp_size = 1) {
    adapter_.Write(folder());
    const auto loaded = Load({.type = DType::kF32,
                              .tp_rank = tp_rank,
                              .tp_size = tp_size,
                              .ep_rank = tp_rank,
                              .ep_size = tp_size,
                              .enable_ep = true});
    EXPECT_TRUE(loaded.has_value()) << loaded.error().message;
    return (*loaded)->digest;
  };
  const uint64_t first = digest();
  EXPECT_NE(first, 0u);
  for (int rank = 0; rank < 2; ++rank) EXPECT_EQ(digest(rank, 2), first);
  adapter_.config.Set("base_model_name_or_path", Json("elsewhere"));
  EXPECT_EQ(digest(), first);
  // The last number of one B, which the first of two ranks does not hold; and of one A.
  for (const char which : {'A', 'B'}) {
    float& value =
        adapter_.tensors.all.at(TestAdapter::NameOf("model.layers.1.self_attn.q_proj", which)).values.back();
    const float before = std::exchange(value, std::nextafter(value, 9.0f));
    EXPECT_NE(digest(0, 2), first) << which;
    EXPECT_EQ(digest(0, 2), digest(1, 2)) << which;
    value = before;
  }
  EXPECT_EQ(digest(), first);
  adapter_.config.Set("lora_alpha", Json(13));
  EXPECT_NE(digest(), first);
  adapter_.config.Set("lora_alpha", Json(12));
  // The same numbers for another projection.
  auto& all = adapter_.tensors.all;
  std::swap(all.at(TestAdapter::NameOf("model.layers.0.self_attn.k_proj", 'B')),
            all.at(TestAdapter::NameOf("model.layers.0.self_attn.v_proj", 'B')));
  EXPECT_NE(digest(), first);
}

TEST_F(AdapterTest, RefusesByName) {
  Make("qwen3_moe");
  const TestAdapter good = adapter_;
  const auto with_tensor = [&](const std::string& name, std::vector<int64_t> shape) {
    adapter_ = good;
    int64_t count = 1;
    for (const int64_t n : shape) count *= n;
    adapter_.tensors.all["base_model.model." + name] = {shape,
                                                        std::vector<float>(static_cast<size_t>(count))};
    return Refusal();
  };
  EXPECT_EQ(Refusal(), "accepted");
  EXPECT_THAT(with_tensor("model.layers.0.mlp.experts.3.up_proj.lora_A.weight", {4, 48}),
              testing::AllOf(HasSubstr("experts.3.up_proj"), HasSubstr("LoRA on experts is not built")));
  EXPECT_THAT(with_tensor("model.layers.0.mlp.gate.lora_A.weight", {4, 48}), HasSubstr("mlp.gate"));
  EXPECT_THAT(with_tensor("model.embed_tokens.lora_embedding_A", {4, 96}), HasSubstr("embeddings"));
  EXPECT_THAT(with_tensor("lm_head.lora_A.weight", {4, 48}), HasSubstr("head"));
  EXPECT_THAT(with_tensor("model.layers.0.self_attn.q_proj.lora_magnitude_vector", {64}), HasSubstr("DoRA"));
  EXPECT_THAT(with_tensor("model.layers.0.self_attn.q_proj.lora_B.bias", {64}), HasSubstr("biases"));
  EXPECT_THAT(with_tensor("model.layers.3.self_attn.q_proj.lora_A.weight", {4, 48}),
              HasSubstr("has 3 layers"));
  EXPECT_THAT(with_tensor("model.layers.0.self_attn.q_proj.lora_A.weight", {4, 47}),
              testing::AllOf(HasSubstr("[4, 47]"), HasSubstr("[rank, 48]"), HasSubstr("another model")));
  EXPECT_THAT(with_tensor("model.layers.0.self_attn.q_proj.lora_B.weight", {63, 4}), HasSubstr("[64, 4]"));
  EXPECT_THAT(with_tensor("model.layers.0.self_attn.q_proj.lora_B.weight", {64, 5}), HasSubstr("[64, 4]"));
  EXPECT_THAT(with_tensor("model.layers.0.self_attn.q_proj.lora_A.weight", {0, 48}), HasSubstr("[rank, 48]"));
  adapter_ = good;
  adapter_.tensors.all.erase(TestAdapter::NameOf("model.layers.0.self_attn.q_proj", 'B'));
  EXPECT_THAT(Refusal(), HasSubstr("no partner"));
  adapter_ = good;
  EXPECT_THAT(Refusal(3), testing::AllOf(HasSubstr("rank 4"), HasSubstr("max_lora_rank 3")));
  adapter_.tensors.all.clear();
  EXPECT_THAT(Refusal(), HasSubstr("no LoRA tensors"));
  adapter_ = good;
  adapter_.config.Set("r", 8);
  EXPECT_THAT(Refusal(), HasSubstr("adapter_config.json says 8"));
  const std::pair<const char*, Json> bad[] = {{"use_dora", true},
                                              {"bias", "all"},
                                              {"peft_type", "IA3"},
                                              {"modules_to_save", Json::Array{"lm_head"}},
                                              {"target_parameters", Json::Array{"mlp.experts.gate_up_proj"}},
                                              {"rank_pattern", Json::Object{{".*q_proj|k_proj", 4}}},
                                              {"alpha_pattern", Json::Object{{"q_proj", "x"}}},
                                              {"lora_alpha", "twelve"}};
  for (const auto& [key, value] : bad) {
    adapter_ = good;
    adapter_.config.Set(key, value);
    EXPECT_THAT(Refusal(), HasSubstr(key));
  }
}

TEST_F(AdapterTest, MissingAndDamagedFiles) {
  Make("llama");
  const auto error = [&] {
    auto loaded = Load();
    EXPECT_FALSE(loaded.has_value());
    return loaded ? Error{} : loaded.error();
  };
  std::filesystem::remove(folder() + "/adapter_model.safetensors");
  EXPECT_EQ(error().code, Code::kNotFound);
  test::WriteText(folder() + "/adapter_model.safetensors", "no safetensors");
  EXPECT_EQ(error().code, Code::kDataLoss);
  adapter_.Write(folder());
  std::filesystem::resize_file(folder() + "/adapter_model.safetensors",
                               std::filesystem::file_size(folder() + "/adapter_model.safetensors") - 1);
  EXPECT_EQ(error().code, Code::kDataLoss);
  test::WriteText(folder() + "/adapter_config.json", "{");
  EXPECT_EQ(error().code, Code::kDataLoss);
  std::filesystem::remove(folder() + "/adapter_config.json");
  EXPECT_EQ(error().code, Code::kNotFound);
  std::filesystem::remove_all(folder());
  EXPECT_EQ(error().code, Code::kNotFound);
  EXPECT_THAT(error().message, HasSubstr("No adapter found for"));
}

// By PEFT's definitions: alpha / r, alpha / sqrt(r) with use_rslora, patterns by the end of a module's path.
TEST(AdapterConfig, ScalesAndPatterns) {
  Json json(Json::Object{{"r", 16}, {"lora_alpha", 8}});
  const auto read = [&] { return *AdapterConfig::FromJson(json, "test"); };
  const std::string q = "model.layers.0.self_attn.q_proj", up = "model.layers.10.mlp.up_proj";
  EXPECT_DOUBLE_EQ(read().ScaleOf(q), 0.5);
  json.Set("use_rslora", true);
  EXPECT_DOUBLE_EQ(read().ScaleOf(q), 2.0);
  json.Set("rank_pattern", Json(Json::Object{{"q_proj", 4}, {"layers.0.mlp.up_proj", 2}}));
  json.Set("alpha_pattern", Json(Json::Object{{"^model\\.layers\\.10.mlp.up_proj", 64}, {"proj", 1000}}));
  EXPECT_EQ(read().RankOf(q), 4);
  EXPECT_DOUBLE_EQ(read().ScaleOf(q), 4.0);
  EXPECT_EQ(read().RankOf(up), 16);  // layers.0 is not the end of layers.10
  EXPECT_DOUBLE_EQ(read().ScaleOf(up), 16.0);
}

TEST_F(AdapterTest, TakesTheBytesThatWerePlanned) {
  for (const std::string family : {"qwen2_moe", "deepseek_v3"}) {
    Make(family);
    const auto loaded = Load();
    ASSERT_TRUE(loaded.has_value()) << loaded.error().message;
    // The plan takes every pair for itself; those of a fused product share their padding.
    const auto bytes = static_cast<int64_t>((*loaded)->memory.bytes());
    EXPECT_LE(bytes, AdapterBytes(spec_, plan_, 4) + 4096);
    EXPECT_GT(bytes, AdapterBytes(spec_, plan_, 4) / 3);
  }
}

}  // namespace
}  // namespace cadre::model
