#include "config/reference.h"

#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

namespace cadre::config {
namespace {

TEST(Reference, PageInTheTreeIsThatOfTheTables) {
  std::ifstream file(std::string(CADRE_SOURCE_DIR) + "/docs/reference.md");
  std::ostringstream text;
  text << file.rdbuf();
  // Not EXPECT_EQ: the two pages would be printed whole.
  EXPECT_TRUE(text.str() == ReferenceText())
      << "run: build/release/cadre config-reference > docs/reference.md";
}

}  // namespace
}  // namespace cadre::config
