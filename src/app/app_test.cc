#include <gtest/gtest.h>

#include <set>

#include "app/commands.h"
#include "app/exit_code.h"

namespace cadre::app {
namespace {

int RunArgs(const std::vector<std::string>& args) {
  return RunCommand(args, {});
}

TEST(ExitCode, IsNeverSuccessAndTellsTheKindsApart) {
  std::set<int> seen;
  for (int code = 0; code <= static_cast<int>(Code::kInternal); ++code) {
    const int status = ExitCode(static_cast<Code>(code));
    EXPECT_GT(status, 0);
    EXPECT_LT(status, 256);
    EXPECT_TRUE(seen.insert(status).second) << CodeName(static_cast<Code>(code));
  }
}

TEST(Commands, AnswerWrongWords) {
  EXPECT_EQ(RunArgs({}), 2);
  EXPECT_EQ(RunArgs({"sevre"}), 2);
  EXPECT_EQ(RunArgs({"bench"}), 2);
  EXPECT_EQ(RunArgs({"bench", "x"}), 2);
  EXPECT_EQ(RunArgs({"serve"}), 2);
  EXPECT_EQ(RunArgs({"serve", "m", "--enable-lora"}), 5);
  EXPECT_EQ(RunArgs({"serve", "m", "--config", "/no/such.yaml"}), 3);
}

TEST(Commands, Help) {
  testing::internal::CaptureStdout();
  EXPECT_EQ(RunArgs({"serve", "--help"}), 0);
  EXPECT_NE(testing::internal::GetCapturedStdout().find("usage: cadre serve"), std::string::npos);
  testing::internal::CaptureStdout();
  EXPECT_EQ(RunArgs({"version"}), 0);
  EXPECT_EQ(testing::internal::GetCapturedStdout().substr(0, 6), "cadre ");
}

}  // namespace
}  // namespace cadre::app
