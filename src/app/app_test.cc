#include <gtest/gtest.h>

#include <csignal>
#include <new>
#include <set>
#include <stdexcept>
#include <thread>

#include "app/commands.h"
#include "app/exit_code.h"
#include "app/out_of_memory.h"

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

TEST(OutOfMemoryDeathTest, EndsTheProcessFromAnyThreadAndSaysWhatToLower) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto run_out = [] {
    EndByNameWhenOutOfMemory();
    std::thread([] { throw std::bad_alloc(); }).join();
  };
  EXPECT_EXIT(run_out(), testing::ExitedWithCode(ExitCode(Code::kResourceExhausted)),
              "--kv-cache-memory-bytes");
  const auto other = [] {
    EndByNameWhenOutOfMemory();
    std::thread([] { throw std::runtime_error("something else"); }).join();
  };
  EXPECT_EXIT(other(), testing::KilledBySignal(SIGABRT), "uncaught: something else");
}

TEST(Commands, AnswerWrongWords) {
  EXPECT_EQ(RunArgs({}), 2);
  EXPECT_EQ(RunArgs({"sevre"}), 2);
  EXPECT_EQ(RunArgs({"bench"}), 2);
  EXPECT_EQ(RunArgs({"bench", "x"}), 2);
  EXPECT_EQ(RunArgs({"serve"}), 2);
  EXPECT_EQ(RunArgs({"serve", "m", "--pipeline-parallel-size", "2"}), 5);
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
