// fp8 weights through the weight path: as published, in every layout of file and ranks, and quantised while
// loading.
#include <gmock/gmock.h>

#include "model/fp8_testing.h"
#include "model/registry.h"
#include "model/tiny.h"

namespace cadre::model {
namespace {

using testing::HasSubstr;

class Fp8Weights : public testing::Test {
 protected:
  // A tiny checkpoint as `layout`, in fp8_ and as numbers in plain_.
  void Publish(const TinyOptions& options, const test::Fp8Layout& layout) {
    test::TempFolder folder;
    ASSERT_TRUE(WriteTinyCheckpoint(folder.path(), options).has_value());
    test::PublishFp8(folder.path(), layout, fp8_.path(), plain_.path());
  }
  Error LoadError() {
    auto model = LoadModel(fp8_.path(), {.fp8 = true}, pool_);
    EXPECT_FALSE(model.has_value());
    return model ? Error{} : model.error();
  }
  // Changes quantization_config.
  Error ConfigError(const std::string& quantization) {
    Json config = *Json::Parse(test::ReadText(fp8_.path() + "/config.json"));
    config.Set("quantization_config", *Json::Parse(quantization));
    const auto spec = ReadModelSpec(config, Json());
    EXPECT_FALSE(spec.has_value()) << quantization;
    return spec ? Error{} : spec.error();
  }

  test::TempFolder fp8_, plain_;
  sys::ThreadPool pool_{{.num_threads = 3, .cpus = {}, .spin = false}};
};

// Shards cut blocks everywhere: 150 columns over 3 ranks begin at 50 and 100.
TinyOptions Sizes(const std::string& family) {
  TinyOptions options{.family = family};
  options.hidden = 132;
  options.num_layers = 2;
  options.head_dim = 20;
  options.dense_inter = 150;
  options.moe_inter = 149;
  options.num_experts = 4;
  options.qk_nope_dim = 12;
  options.v_head_dim = 37;
  return options;
}

TEST_F(Fp8Weights, PublishedOnesAreReadAsTheyAre) {
  for (const char* family : {"qwen2_moe", "mixtral", "deepseek_v3"}) {
    for (const test::Fp8Layout& layout : test::Fp8Layouts()) {
      SCOPED_TRACE(Format("{} {}", family, layout.name));
      ASSERT_NO_FATAL_FAILURE(Publish(Sizes(family), layout));
      for (const DType type : {DType::kBf16, DType::kF32}) {
        for (const auto& [tp, dp] : {std::pair(1, 1), {2, 1}, {1, 3}, {2, 2}}) {
          for (const bool ep : {false, true}) {
            if (type == DType::kF32 && (tp == 1 || ep)) continue;
            test::CheckAllRanks(fp8_.path(), tp, dp, ep, type, pool_, test::Fp8::kPublished, plain_.path());
          }
        }
      }
      // And as numbers of the mode, for who does not ask for fp8.
      test::CheckAllRanks(fp8_.path(), 2, 1, true, DType::kF32, pool_, test::Fp8::kNone, plain_.path());
    }
  }
}

TEST_F(Fp8Weights, OthersAreQuantizedWhileLoading) {
  for (const Family& family : Families()) {
    for (const bool fused : {false, true}) {
      for (const DType type : {DType::kBf16, DType::kF16, DType::kF32}) {
        if (type != DType::kBf16 && (fused || family.model_type != std::string("qwen3_moe"))) continue;
        SCOPED_TRACE(Format("{} {} fused {}", family.model_type, DTypeName(type), fused));
        test::TempFolder folder;
        TinyOptions options = Sizes(family.model_type);
        options.type = type;
        options.fused_experts = fused;
        options.tie_embeddings = fused;
        ASSERT_TRUE(WriteTinyCheckpoint(folder.path(), options).has_value());
        for (const DType mode : {DType::kBf16, DType::kF32}) {
          for (const auto& [tp, dp] : {std::pair(1, 1), {2, 1}, {1, 3}}) {
            if (type != DType::kBf16 && dp == 1) continue;
            for (const bool ep : {false, true})
              test::CheckAllRanks(folder.path(), tp, dp, ep, mode, pool_, test::Fp8::kWhileLoading);
          }
        }
      }
    }
  }
}

// What the plan promises is what lies in memory, and it is half.
TEST_F(Fp8Weights, PlansCountTrueBytes) {
  TinyOptions options = Sizes("qwen3_moe");
  options.hidden = 512;
  options.moe_inter = 256;
  test::TempFolder folder;
  ASSERT_TRUE(WriteTinyCheckpoint(folder.path(), options).has_value());
  const auto plain = LoadModel(folder.path(), {}, pool_),
             fp8 = LoadModel(folder.path(), {.fp8 = true}, pool_);
  ASSERT_TRUE(plain.has_value() && fp8.has_value());
  const double ratio =
      static_cast<double>(plain->plan.expert_bytes) / static_cast<double>(fp8->plan.expert_bytes);
  EXPECT_GT(ratio, 1.96);
  EXPECT_LT(ratio, 2.0);
  EXPECT_EQ(plain->plan.parts.lm_head, fp8->plan.parts.lm_head);
  EXPECT_EQ(plain->plan.parts.routers, fp8->plan.parts.routers);
  EXPECT_LT(fp8->plan.parts.attention * 19, plain->plan.parts.attention * 10);
}

TEST_F(Fp8Weights, BrokenFilesAreNamed) {
  const auto layouts = test::Fp8Layouts();
  const std::string file = fp8_.path() + "/model.safetensors";
  const auto replace = [&](const std::string& from, const std::string& to) {
    std::string bytes = test::ReadText(file);
    const size_t at = bytes.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    ASSERT_EQ(from.size(), to.size());
    test::WriteText(file, bytes.replace(at, from.size(), to));
  };
  Publish(Sizes("qwen3_moe"), layouts[0]);
  replace("0.self_attn.k_proj.weight_scale_inv", "0.self_attn.k_proj.weight_scale_inx");
  EXPECT_THAT(LoadError().message, HasSubstr("k_proj.weight_scale_inv'"));

  // Blocks of 64 x 128 would have three rows of scales.
  Publish(Sizes("qwen3_moe"), layouts[0]);
  Json config = *Json::Parse(test::ReadText(fp8_.path() + "/config.json"));
  config.Find("quantization_config")->Set("weight_block_size", Json::Array{64, 128});
  test::WriteText(fp8_.path() + "/config.json", config.Dump());
  EXPECT_THAT(LoadError().message, HasSubstr("one scale for each block of 64 x 128"));

  // The config says that all is fp8, the file does not.
  test::Fp8Layout partly = layouts[0];
  partly.plain_part = "o_proj";
  Publish(Sizes("qwen3_moe"), partly);
  EXPECT_THAT(LoadError().message, HasSubstr("o_proj.weight' has type float32; by config.json"));

  // The file says fp8, the config nothing.
  Publish(Sizes("qwen3_moe"), layouts[0]);
  config = *Json::Parse(test::ReadText(plain_.path() + "/config.json"));
  test::WriteText(fp8_.path() + "/config.json", config.Dump());
  EXPECT_THAT(LoadError().message, HasSubstr("no quantization_config"));

  // A scale that is not a number: the last tensor of the file is the last layer's.
  Publish(Sizes("llama"), layouts[2]);
  std::string bytes = test::ReadText(file);
  const auto tensors = *checkpoint::OpenCheckpoint(fp8_.path());
  const auto* scale = tensors->Find("model.layers.0.mlp.up_proj.weight_scale");
  ASSERT_NE(scale, nullptr);
  bytes.replace(static_cast<size_t>(scale->offset), 4, "\xFF\xFF\xFF\x7F");
  test::WriteText(file, bytes);
  EXPECT_THAT(LoadError().message, HasSubstr("mlp.up_proj.weight_scale' has a scale of nan"));
}

TEST_F(Fp8Weights, OtherQuantizationsAreRefusedByName) {
  Publish(Sizes("qwen3_moe"), test::Fp8Layouts()[0]);
  for (
      const auto& [config, text] : std::vector<std::pair<std::string, std::string>>{
          {R"({"quant_method": "awq", "bits": 4})", "quant_method"},
          {R"({"bits": 4})", "quant_method"},
          {R"(7)", "an object"},
          {R"({"quant_method": "fp8", "fmt": "e5m2"})", "fmt"},
          {R"({"quant_method": "fp8", "activation_scheme": "odd"})", "activation_scheme"},
          {R"({"quant_method": "fp8", "weight_block_size": [128]})", "weight_block_size"},
          {R"({"quant_method": "fp8", "weight_block_size": [128, 6]})", "multiple of 4"},
          {R"({"quant_method": "fp8", "weight_block_size": [0, 128]})", "weight_block_size"},
          {R"({"quant_method": "fp8", "ignored_layers": ["re:.*(q|k)_proj"]})", "not understood"},
          {R"({"quant_method": "compressed-tensors"})", "config_groups"},
          {R"({"quant_method": "compressed-tensors", "config_groups": {"a": {"weights": {"num_bits": 4, "type": "int"}}}})",
           "8 bits"},
          {R"({"quant_method": "compressed-tensors", "config_groups": {"a": {"targets": ["re:.*q_proj"],
                "weights": {"num_bits": 8, "type": "float"}}}})",
           "targets"},
          {R"({"quant_method": "compressed-tensors", "config_groups": {"a": {"weights":
                {"num_bits": 8, "type": "float", "strategy": "group"}}}})",
           "by tensor, channel or block"},
      }) {
    EXPECT_THAT(ConfigError(config).message, HasSubstr(text)) << config;
  }
}

TEST(QuantSpec, NamesAndPatterns) {
  const QuantSpec spec{.method = "fp8",
                       .skip = {"lm_head", "model.layers.3", "gate", "re:.*self_attn.[qk]_proj$"}};
  EXPECT_FALSE(spec.Quantizes("lm_head"));
  EXPECT_FALSE(spec.Quantizes("model.layers.3.mlp.down_proj"));
  EXPECT_TRUE(spec.Quantizes("model.layers.30.mlp.down_proj"));
  EXPECT_FALSE(spec.Quantizes("model.layers.0.mlp.gate"));
  EXPECT_TRUE(spec.Quantizes("model.layers.0.mlp.gate_proj"));
  EXPECT_FALSE(spec.Quantizes("model.layers.0.self_attn.k_proj"));
  EXPECT_TRUE(spec.Quantizes("model.layers.0.self_attn.v_proj"));
}

TEST(MatchesPattern, AsPythonsMatch) {
  struct Case {
    const char *pattern, *text;
    bool matches;
  };
  for (const Case& c : std::vector<Case>{{"abc", "abcd", true},
                                         {"abc$", "abcd", false},
                                         {"^abc$", "abc", true},
                                         {"bc", "abc", false},
                                         {".*bc", "abc", true},
                                         {"a.c", "axc", true},
                                         {"a\\.c", "axc", false},
                                         {"a\\.c", "a.c", true},
                                         {"layers\\.\\d+\\.mlp", "layers.12.mlp.x", true},
                                         {"layers\\.\\d+\\.mlp", "layers..mlp", false},
                                         {"[^.]*x", "aax", true},
                                         {"[^.]*x", "a.x", false},
                                         {"[a-c]+d", "abcd", true},
                                         {"x|ab", "abc", true},
                                         {"x|b", "abc", false},
                                         {"colou?r$", "color", true},
                                         {"", "abc", true},
                                         {"$", "a", false},
                                         {"a*a*a*a*a*$", "aaaaaaaaaaaaaaaaaaaaaaaab", false},
                                         {".*?b", "aab", true}}) {
    const auto matches = MatchesPattern(c.pattern, c.text);
    ASSERT_TRUE(matches.has_value()) << c.pattern << matches.error().message;
    EXPECT_EQ(*matches, c.matches) << c.pattern << " on " << c.text;
  }
  for (const char* pattern : {"(a)", "a{2}", "*a", "[ab", "a\\", "\\b", "a^b"})
    EXPECT_FALSE(MatchesPattern(pattern, "a").has_value()) << pattern;
  EXPECT_FALSE(MatchesPattern(std::string(5000, 'a'), "a").has_value());
}

}  // namespace
}  // namespace cadre::model
