#include "config/reference.h"

#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "config/from_vllm.h"
#include "config/settings.h"

namespace cadre::config {
namespace {

std::string InTheTree(const std::string& name) {
  std::ifstream file(std::string(CADRE_SOURCE_DIR) + "/" + name);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

TEST(Reference, PageInTheTreeIsThatOfTheTables) {
  // Not EXPECT_EQ: the two pages would be printed whole.
  EXPECT_TRUE(InTheTree("docs/reference.md") == ReferenceText())
      << "run: build/release/cadre config-reference > docs/reference.md";
}

TEST(FromVllm, PageInTheTreeIsThatOfTheTables) {
  EXPECT_TRUE(InTheTree("docs/from-vllm.md") == FromVllmText())
      << "run: build/release/cadre config-reference from-vllm > docs/from-vllm.md";
}

// The list is vLLM's own parser's, not ours.
TEST(FromVllm, EveryFlagOfVllmIsOnThePage) {
  const std::string page = FromVllmText();
  std::istringstream list(InTheTree("src/config/testdata/vllm_0_32_serve_flags.txt"));
  int checked = 0;
  for (std::string line; std::getline(list, line);) {
    const std::string name = line.substr(0, line.find(' '));
    if (!name.starts_with("--") || name == "--config") continue;
    EXPECT_TRUE(page.contains("`" + name + "`")) << name;
    ++checked;
  }
  EXPECT_GT(checked, 300);
}

TEST(FromVllm, WhatIsCalledBetterWorksAndIsNoFlagOfOurs) {
  for (const auto& rows : {BetterFlags(), OtherDefaults()}) {
    for (const Difference& row : rows) {
      const Setting* setting = FindSetting(Command::kServe, row.flag);
      ASSERT_NE(setting, nullptr) << row.flag;
      EXPECT_EQ(setting->kind, Kind::kWorks) << row.flag;
      const auto own = CadreGroups()[0].settings;
      EXPECT_FALSE(setting >= own.data() && setting < own.data() + own.size()) << row.flag;
      EXPECT_TRUE(row.text.ends_with('.')) << row.flag;
    }
  }
}

}  // namespace
}  // namespace cadre::config
