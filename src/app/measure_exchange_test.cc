#include "app/measure_exchange.h"

#include <gtest/gtest.h>

namespace cadre::app {
namespace {

TEST(MeasureExchange, CountsWhatOneRoundMoves) {
  ExchangeCase c;
  c.backend = "flashinfer_all2allv";
  c.rows = 6;
  c.hidden = 64;
  c.to_peers = true;
  c.iterations = 5;
  c.bare_bytes = 6 * 128;
  for (const int ranks : {2, 3}) {
    c.ranks = ranks;
    const auto times = MeasureExchange(c);
    ASSERT_TRUE(times) << times.error().message;
    // All rows leave, so as many come; each is 64 bfloat16, a slot and a weight.
    EXPECT_EQ(times->bytes.dispatch_algorithmic, 6 * (128 + 8));
    EXPECT_EQ(times->bytes.combine_algorithmic, 6 * 256);
    EXPECT_GT(times->dispatch_us, 0);
    EXPECT_GT(times->combine_us, 0);
    EXPECT_GT(times->bare_us, 0);
  }
  c.to_peers = false;
  c.backend = "deepep_low_latency";
  c.rows = 300;  // more than a chunk
  c.experts = 16;
  c.top_k = 4;
  EXPECT_TRUE(MeasureExchange(c));
}

TEST(MeasureExchange, ErrorsOfTheRanksComeBack) {
  ExchangeCase c;
  c.backend = "gather";
  c.iterations = 5;
  const auto times = MeasureExchange(c);
  ASSERT_FALSE(times);
  EXPECT_TRUE(times.error().message.starts_with("all2all backend 'gather' is unknown"))
      << times.error().message;
}

}  // namespace
}  // namespace cadre::app
