#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "engine/eplb_testing.h"
#include "serve/eplb_query.h"
#include "serve/house_testing.h"

namespace cadre::serve {
namespace {

using testing::HasSubstr;
using testing::Not;

FakeEngineOptions Balanced() {
  FakeEngineOptions options;
  options.eplb = engine::SampleEplbState().stats;
  options.eplb_state = [](TimePoint) { return engine::SampleEplbState(); };
  return options;
}

TEST(ServeEplb, TheStateIsJson) {
  House house(Balanced());
  const http::Response response = house.Get("/eplb");
  EXPECT_EQ(response.status, 200);
  EXPECT_THAT(response.content_type, HasSubstr("application/json"));
  const Json json = Parsed(response.body);
  EXPECT_EQ(At(json, "maps"), Parsed("[[0,1,2,0],[1,0,2,0]]"));
  EXPECT_EQ(At(json, "counters.moved_experts"), Json(4));
  EXPECT_EQ(At(json, "load.counts.1.0"), Json(5));
  EXPECT_EQ(house.Post("/eplb", "{}").status, 405);
}

TEST(ServeEplb, WithoutBalancingItIsNotThere) {
  House house;
  const http::Response response = house.Get("/eplb");
  EXPECT_EQ(response.status, 404);
  EXPECT_THAT(response.body, HasSubstr("--enable-eplb"));
  EXPECT_THAT(house.Get("/metrics").body, Not(HasSubstr("cadre:eplb")));
  EXPECT_EQ(house.Get("/health").body, "");
}

TEST(ServeEplb, ADeadRankIsA503) {
  FakeEngineOptions options = Balanced();
  options.eplb_state = [](TimePoint) -> Result<engine::EplbState> {
    return Fail(Code::kUnavailable, "rank 0 was killed");
  };
  House house(options);
  const http::Response response = house.Get("/eplb");
  EXPECT_EQ(response.status, 503);
  EXPECT_THAT(response.body, HasSubstr("rank 0 was killed"));
}

TEST(ServeEplb, ASlowRankHoldsNobodyElse) {
  std::atomic<bool> asked = false, go = false;
  FakeEngineOptions options = Balanced();
  options.eplb_state = [&](TimePoint) {
    asked = true;
    while (!go) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return engine::SampleEplbState();
  };
  House house(options);
  std::thread asker([&] { EXPECT_EQ(house.Get("/eplb").status, 200); });
  while (!asked) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_EQ(house.Get("/health").status, 200);  // the io threads are free
  go = true;
  asker.join();
  EXPECT_EQ(house.Get("/eplb").status, 200);  // and it can be asked again
}

// Keeps the status that it is sent.
struct Noting : http::ResponseWriter {
  void Send(http::Response response) override { status = response.status; }
  void StartStream(int, std::string, http::Headers) override {}
  void Write(std::string_view) override {}
  void End() override {}
  void OnDisconnect(http::Task) override {}
  void Post(http::Task) override {}
  std::atomic<int> status = 0;
};

TEST(ServeEplb, ThoseWhoAskMeanwhileShareOneQuestion) {
  std::atomic<int> asked = 0;
  std::atomic<bool> go = false;
  FakeEngineOptions options = Balanced();
  options.eplb_state = [&](TimePoint) {
    ++asked;
    while (!go) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return engine::SampleEplbState();
  };
  FakeEngine engine(options);
  EplbQuery query;
  std::vector<std::shared_ptr<Noting>> writers;
  for (int i = 0; i < 100; ++i) {
    writers.push_back(std::make_shared<Noting>());
    EXPECT_TRUE(query.Ask(engine, writers.back()));
  }
  go = true;
  query.Stop();
  for (const auto& writer : writers) EXPECT_EQ(writer->status, 200);
  EXPECT_EQ(asked, 1);
  EXPECT_EQ(query.Ask(engine, writers[0]).error().code, Code::kUnavailable);
}

TEST(ServeEplb, StoppingWaitsForTheQuestion) {
  std::atomic<bool> asked = false, answered = false;
  FakeEngineOptions options = Balanced();
  options.eplb_state = [&](TimePoint) {
    asked = true;
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    answered = true;
    return engine::SampleEplbState();
  };
  House house(options);
  std::thread asker([&] { (void)house.client->Fetch({"GET", "/eplb"}); });
  while (!asked) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  house.server->Stop(Now());
  EXPECT_TRUE(answered);
  asker.join();
}

TEST(ServeEplb, MetricsSayItOnce) {
  FakeEngineOptions options = Balanced();
  options.num_ranks = 2;
  House house(options);
  const std::string text = house.Get("/metrics").body;
  for (const char* line : {
           "cadre:eplb_balancedness{model_name=\"fake\"} 0.75\n",
           "cadre:eplb_layer_balancedness{layer=\"1\",model_name=\"fake\"} 1\n",
           "cadre:eplb_rank_tokens{model_name=\"fake\",rank=\"0\"} 30\n",
           "cadre:eplb_expert_tokens{expert=\"2\",layer=\"1\",model_name=\"fake\"} 3\n",
           "cadre:eplb_epoch{model_name=\"fake\"} 2\n",
           "cadre:eplb_moving{model_name=\"fake\"} 0\n",
           "cadre:eplb_stalled{model_name=\"fake\"} 0\n",
           "cadre:eplb_rebalances_total{model_name=\"fake\"} 3\n",
           "cadre:eplb_moved_experts_total{model_name=\"fake\"} 4\n",
           "cadre:eplb_moved_bytes_total{model_name=\"fake\"} 4096\n",
           "cadre:eplb_failed_waves_total{model_name=\"fake\"} 1\n",
           "cadre:eplb_moving_seconds_total{engine=\"0\",model_name=\"fake\"} 0.5\n",
       })
    EXPECT_THAT(text, HasSubstr(line));
}

TEST(ServeEplb, ManyExpertsAreOneSeriesEach) {
  FakeEngineOptions options = Balanced();
  options.eplb.one_row_of_experts = true;
  options.eplb.expert_tokens = {25, 7, 8};
  House house(options);
  const std::string text = house.Get("/metrics").body;
  EXPECT_THAT(text,
              HasSubstr("cadre:eplb_expert_tokens{expert=\"2\",layer=\"all\",model_name=\"fake\"} 8\n"));
  EXPECT_THAT(text, Not(HasSubstr("eplb_expert_tokens{expert=\"0\",layer=\"0\"")));
}

TEST(ServeEplb, AStalledRebalanceIsShownAndServesOn) {
  FakeEngineOptions options = Balanced();
  options.eplb.moving = options.eplb.stalled = true;
  options.eplb.waits_for = "rank 3";
  House house(options);
  const http::Response health = house.Get("/health");
  EXPECT_EQ(health.status, 200);
  const Json body = Parsed(health.body);
  EXPECT_EQ(At(body, "status"), Json("ok"));
  EXPECT_EQ(At(body, "warnings.0"), Json("a rebalance of experts is stalled; it waits for rank 3"));
  EXPECT_THAT(house.Get("/metrics").body, HasSubstr("cadre:eplb_stalled{model_name=\"fake\"} 1\n"));
}

}  // namespace
}  // namespace cadre::serve
