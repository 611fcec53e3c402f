#include "config/lora.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace cadre::config {
namespace {

using testing::HasSubstr;
using Words = std::vector<std::string>;

Result<LoraOptions> Parsed(Words words) {
  words.insert(words.begin(), "m");
  const auto parsed = ParseServe(words, {});
  if (!parsed) return std::unexpected(parsed.error());
  return parsed->options.engine.lora;
}
std::string ErrorOf(Words words) {
  const auto parsed = Parsed(std::move(words));
  return parsed ? "accepted" : parsed.error().message;
}

TEST(Lora, ModulesInBothForms) {
  const auto lora = Parsed(
      {"--enable-lora", "--lora-modules", "a=/x=y", R"({"name":"b","path":"/b","base_model_name":"m"})"});
  ASSERT_TRUE(lora.has_value()) << lora.error().message;
  EXPECT_THAT(lora->modules, testing::ElementsAre(LoraModule{"a", "/x=y", ""}, LoraModule{"b", "/b", "m"}));
  EXPECT_EQ(lora->max_adapters(), 8);
  EXPECT_EQ(lora->num_planned(), 2);
  EXPECT_EQ(lora->max_rank, 16);
  EXPECT_EQ(Parsed({"--enable-lora", "--max-loras", "20"})->max_adapters(), 20);
  EXPECT_EQ(Parsed({"--enable-lora", "--max-loras", "2", "--max-cpu-loras", "3"})->max_adapters(), 3);
  EXPECT_FALSE(Parsed({})->enabled);
}

TEST(Lora, WhatDoesNotGoTogether) {
  EXPECT_EQ(ErrorOf({"--lora-modules", "a=/a"}), "--lora-modules wants --enable-lora");
  const std::string on = "--enable-lora", modules = "--lora-modules";
  for (const char* word : {"a", "=a", "a="})
    EXPECT_THAT(ErrorOf({on, modules, word}), HasSubstr("NAME=PATH")) << word;
  EXPECT_THAT(ErrorOf({on, modules, "{"}), HasSubstr("--lora-modules"));
  EXPECT_THAT(ErrorOf({on, modules, R"({"name":"a"})"}), HasSubstr("lacks name or path"));
  EXPECT_THAT(ErrorOf({on, modules, R"({"name":"a","path":3})"}), HasSubstr("must be text"));
  EXPECT_THAT(ErrorOf({on, modules, R"({"name":"a","path":"/a","x":1})"}), HasSubstr("knows no 'x'"));
  EXPECT_THAT(ErrorOf({on, modules, R"({"name":"a","path":"/a","base_model_name":"n"})"}),
              HasSubstr("not a name"));
  EXPECT_THAT(ErrorOf({on, modules, "a=/a", "a=/b"}), HasSubstr("given twice"));
  EXPECT_THAT(ErrorOf({on, modules, "m=/a"}), HasSubstr("the model's own"));
  EXPECT_THAT(ErrorOf({on, "--served-model-name", "a", "b", modules, "b=/a"}), HasSubstr("the model's own"));
  EXPECT_THAT(ErrorOf({on, modules, "a=/a", "b=/a", "--max-cpu-loras", "1"}), HasSubstr("2 adapters and 1"));
  EXPECT_THAT(ErrorOf({on, "--max-loras", "4", "--max-cpu-loras", "3"}),
              HasSubstr("must be >= max_loras (4)"));
  EXPECT_THAT(ErrorOf({on, "--lora-dtype", "bfloat16", "--dtype", "float32"}), HasSubstr("--lora-dtype"));
  EXPECT_THAT(ErrorOf({on, "--lora-dtype", "float16"}), HasSubstr("float16"));
  EXPECT_THAT(ErrorOf({on, "--max-lora-rank", "513"}), HasSubstr("--max-lora-rank"));
  const std::string transfer = R"({"kv_connector":"NixlConnector","kv_role":"kv_both"})";
  EXPECT_EQ(ErrorOf({on, "--kv-transfer-config", transfer}), "accepted");
  EXPECT_EQ(ErrorOf({on, "--lora-dtype", "bfloat16"}), "accepted");
}

}  // namespace
}  // namespace cadre::config
