// Thousands of streams at once on two threads, readers that stop, clients that vanish: nobody waits for
// anybody.
#include "http/stream_load.h"

#include <gtest/gtest.h>

namespace cadre::http {
namespace {

TEST(Streams, TwoThousandStreamsOfTwentyEvents) {
  if (RaiseOpenFileLimit() < 4200) GTEST_SKIP() << "the limit of open files is too low for 2000 streams";
  const StreamLoadResult result =
      RunStreamLoad({.num_streams = 2000, .num_events = 20, .interval = std::chrono::milliseconds(100)});
  EXPECT_EQ(result.num_complete, 2000);
  EXPECT_EQ(result.num_events, 2000 * 20);
  EXPECT_EQ(result.num_connections_after, 0);
}

}  // namespace
}  // namespace cadre::http
