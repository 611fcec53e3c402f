#include "deploy/signals.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <cstdio>

namespace cadre::deploy {
namespace {

TEST(EndOnStopSignal, EndsTheProcessWhileWorkGoesOn) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  for (const int signal : {SIGINT, SIGTERM}) {
    EXPECT_EXIT(
        {
          BlockStopSignals();
          const EndOnStopSignal loading([] { std::fputs("cleaned up\n", stderr); });
          kill(getpid(), signal);
          sleep(60);
        },
        testing::ExitedWithCode(128 + signal), "cleaned up");
  }
}

TEST(EndOnStopSignal, LeavesLaterSignalsToTheNextWaiter) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        BlockStopSignals();
        {
          const EndOnStopSignal loading([] {});
        }
        kill(getpid(), SIGTERM);
        _exit(WaitForStopSignal() == SIGTERM ? 7 : 1);
      },
      testing::ExitedWithCode(7), "");
}

}  // namespace
}  // namespace cadre::deploy
