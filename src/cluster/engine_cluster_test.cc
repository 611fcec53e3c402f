#include "cluster/engine_cluster.h"

#include <gtest/gtest.h>

namespace cadre::cluster {
namespace {

// Counts what it is given; says what load it is told to.
class CountingEngine : public engine::Engine {
 public:
  const engine::ModelInfo& model_info() const override { return info; }
  Result<std::unique_ptr<engine::RequestHandle>> Submit(engine::Request,
                                                        std::shared_ptr<engine::EventSink>) override {
    ++num_requests;
    ++stats.num_running;
    return nullptr;
  }
  std::vector<engine::RankStats> Stats() const override { return {stats}; }
  Status Health() const override { return health; }
  Status ResetPrefixCache() override { return {}; }
  void Drain(TimePoint) override { drained = true; }

  engine::ModelInfo info;
  engine::RankStats stats;
  Status health;
  int num_requests = 0;
  bool drained = false;
};

TEST(EngineCluster, GivesWorkToTheLeastLoaded) {
  CountingEngine a, b, c;
  b.stats.num_waiting = 2;  // as much as eight that run
  EngineCluster cluster({&a, &b, &c});
  for (int i = 0; i < 12; ++i) ASSERT_TRUE(cluster.Submit({}, nullptr).has_value());
  EXPECT_EQ(a.num_requests, 6);
  EXPECT_EQ(b.num_requests, 0);
  EXPECT_EQ(c.num_requests, 6);
}

TEST(EngineCluster, HonoursTheRankAskedFor) {
  CountingEngine a, b;
  EngineCluster cluster({&a, &b});
  engine::Request request;
  request.data_parallel_rank = 1;
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(cluster.Submit(request, nullptr).has_value());
  EXPECT_EQ(b.num_requests, 3);
  request.data_parallel_rank = 2;
  EXPECT_FALSE(cluster.Submit(request, nullptr).has_value());
}

TEST(EngineCluster, IsAsWellAsItsWorstAndDrainsAll) {
  CountingEngine a, b;
  EngineCluster cluster({&a, &b});
  EXPECT_TRUE(cluster.Health().has_value());
  b.health = Fail(Code::kUnavailable, "rank 1 is gone");
  EXPECT_EQ(cluster.Health().error().message, "rank 1 is gone");
  EXPECT_EQ(cluster.Stats().size(), 2u);
  cluster.Drain(Now());
  EXPECT_TRUE(a.drained && b.drained);
}

}  // namespace
}  // namespace cadre::cluster
