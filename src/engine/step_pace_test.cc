#include "engine/step_pace.h"

#include <gtest/gtest.h>

namespace cadre::engine {
namespace {

TEST(StepPace, TakesAllUntilItKnows) {
  StepPace pace(0.5);
  EXPECT_EQ(pace.Budget(2048), 2048);
  pace.Note(10.0, 127);  // few tokens: the time in which the weights are read
  EXPECT_EQ(pace.Budget(2048), 2048);
}

TEST(StepPace, CutsToTheWantedTimeAndKeepsAChunk) {
  StepPace pace(0.5);
  pace.Note(1.0, 1000);
  EXPECT_EQ(pace.Budget(2048), 500);
  EXPECT_EQ(pace.Budget(300), 300);
  for (int i = 0; i < 100; ++i) pace.Note(100.0, 1000);
  EXPECT_EQ(pace.Budget(2048), 128);
  EXPECT_EQ(pace.Budget(64), 64);
}

TEST(StepPace, FollowsTheSpeedSmoothly) {
  StepPace pace(0.5);
  pace.Note(1.0, 1000);
  pace.Note(2.0, 1000);
  EXPECT_EQ(pace.Budget(2048), 400);
  for (int i = 0; i < 100; ++i) pace.Note(0.1, 1000);
  EXPECT_EQ(pace.Budget(2048), 2048);
}

}  // namespace
}  // namespace cadre::engine
