// The trainer's routes over an engine that only notes what it is told.
#include <mutex>

#include "serve/house_testing.h"

namespace cadre::serve {
namespace {

using engine::ControlKind;
using engine::ControlRequest;
using engine::ControlState;
using engine::PauseMode;
using engine::WeightOrder;
using testing::HasSubstr;

struct Told {
  std::mutex mutex;
  std::vector<ControlRequest> orders;
  Result<ControlState> answer = ControlState{.paused = true, .generation = 3, .seconds = 0.5, .bytes = 10};
  FakeEngineOptions Options() {
    FakeEngineOptions options;
    options.control = [this](const ControlRequest& order) {
      const std::lock_guard lock(mutex);
      orders.push_back(order);
      return answer;
    };
    return options;
  }
  ControlRequest Last() {
    const std::lock_guard lock(mutex);
    return orders.empty() ? ControlRequest() : orders.back();
  }
};

ServeOptions FourRanks() {
  ServeOptions options;
  options.num_ranks = 4;
  options.tensor_parallel_size = 2;
  return options;
}

TEST(Rl, PauseTakesVllmsParameters) {
  Told told;
  House house(told.Options());
  const struct {
    const char* query;
    PauseMode mode;
    bool clear;
  } cases[] = {{"", PauseMode::kAbort, true},
               {"?mode=wait", PauseMode::kWait, true},
               {"?mode=keep&clear_cache=false", PauseMode::kKeep, false},
               {"?mode=abort&clear_cache=1", PauseMode::kAbort, true},
               {"?wait_for_inflight_requests=True", PauseMode::kWait, true}};
  for (const auto& c : cases) {
    EXPECT_EQ(At(house.PostJson(std::string("/pause") + c.query, ""), "status"), Json("paused"));
    EXPECT_EQ(told.Last().mode, c.mode) << c.query;
    EXPECT_EQ(told.Last().clear_cache, c.clear) << c.query;
  }
  const size_t count = told.orders.size();
  EXPECT_EQ(house.Post("/pause?mode=no", "").status, 400);
  EXPECT_EQ(house.Post("/pause?clear_cache=no!", "").status, 400);
  EXPECT_EQ(told.orders.size(), count);
  EXPECT_EQ(house.Get("/is_paused").body, R"({"is_paused":true})");
  EXPECT_EQ(house.PostJson("/resume", ""), Parsed(R"({"status":"resumed"})"));
  EXPECT_EQ(told.Last().kind, ControlKind::kResume);
}

TEST(Rl, BothBodiesOfUpdateWeights) {
  Told told;
  House house(told.Options());
  EXPECT_EQ(At(house.PostJson("/update_weights", R"({"weight_dir":"/w"})"), "status"), Json("ok"));
  EXPECT_EQ(told.Last().weights, (WeightOrder{.folder = "/w"}));
  const Json answer = house.PostJson("/update_weights", R"({"update_info":{"weight_dir":"/w"},"timeout":5})");
  EXPECT_EQ(At(answer, "message"), Json("Weights updated"));
  EXPECT_EQ(At(answer, "generation"), Json(3));
  EXPECT_EQ(told.Last().weights, (WeightOrder{.folder = "/w", .timeout_s = 5}));
  house.PostJson("/update_weights", R"({"weight_dir":null})");
  EXPECT_EQ(told.Last().weights.kind, WeightOrder::Kind::kReceive);
  EXPECT_EQ(told.Last().weights.expected, "");
  house.PostJson(
      "/update_weights",
      R"({"update_info":{"names":["a"],"dtype_names":["torch.bfloat16"],"shapes":[[2,3]],"packed":true}})");
  EXPECT_EQ(told.Last().weights.expected, R"([["a","bfloat16",[2,3]]])");
  house.PostJson("/reload_weights", "{}");
  EXPECT_EQ(told.Last().weights.kind, WeightOrder::Kind::kReload);
  for (const char* bad : {"", "{}", "[]", "{", R"({"weight_dir":""})", R"({"weight_dir":[1]})",
                          R"({"update_info":1})", R"({"update_info":{"names":["a"]}})",
                          R"({"update_info":{"names":["a"],"dtype_names":["x"],"shapes":[1]}})",
                          R"({"update_info":{"names":["a"],"dtype_names":["x"],"shapes":[["1"]]}})",
                          R"({"weight_dir":"/w","timeout":0})"})
    EXPECT_EQ(house.Post("/update_weights", bad).status, 400) << bad;
}

TEST(Rl, WhatCannotBeDoneIsNoMissingRoute) {
  Told told;
  House house(told.Options());
  told.answer = Fail(Code::kNotFound, "there is no folder /w");
  const auto response = house.Post("/update_weights", R"({"weight_dir":"/w"})");
  EXPECT_EQ(response.status, 400);
  EXPECT_THAT(response.body, HasSubstr("no folder"));
  told.answer = Fail(Code::kUnavailable, "damaged");
  EXPECT_EQ(house.Post("/update_weights", R"({"weight_dir":"/w"})").status, 503);
}

TEST(Rl, ReceiversAreCountedInEveryWay) {
  Told told;
  House house(told.Options(), FourRanks());
  const struct {
    const char *path, *body;
    int first, world;
  } cases[] = {
      {"/init_broadcaster", R"({"host":"h","port":5,"server_rank":0,"num_inference_server":1,"timeout":9})",
       1, 5},
      {"/init_broadcaster", R"({"host":"h","port":5,"server_rank":2,"num_inference_server":3,"timeout":9})",
       9, 13},
      {"/init_broadcaster", R"({"host":"h","port":5,"rank_offset":4,"inference_world_size":8,"timeout":9})",
       5, 9},
      {"/init_weight_transfer_engine",
       R"({"init_info":{"master_address":"h","master_port":5,"rank_offset":1,"world_size":5,"timeout":9}})",
       1, 5}};
  for (const auto& c : cases) {
    house.PostJson(c.path, c.body);
    EXPECT_EQ(told.Last().weights, (WeightOrder{.kind = WeightOrder::Kind::kConnect,
                                                .host = "h",
                                                .port = 5,
                                                .first_receiver = c.first,
                                                .world_size = c.world,
                                                .timeout_s = 9}))
        << c.body;
  }
  for (const char* bad : {"{}", R"({"host":"h"})", R"({"host":"h","port":0})", R"({"host":"h","port":70000})",
                          R"({"host":"h","port":5,"rank_offset":5,"inference_world_size":8})",
                          R"({"host":"h","port":5,"server_rank":1,"num_inference_server":1})",
                          R"({"host":"h","port":5,"quantize_in_weight_transfer":true})"})
    EXPECT_EQ(house.Post("/init_broadcaster", bad).status, 400) << bad;
  EXPECT_EQ(house.Get("/get_world_size").body, R"({"world_size":4})");
  EXPECT_EQ(house.Get("/get_world_size?include_dp=false").body, R"({"world_size":2})");
}

TEST(Rl, LivenessHasAClockOfItsOwn) {
  // An engine that never answers, as one in an endless step.
  class Hanging : public engine::Engine {
   public:
    const engine::ModelInfo& model_info() const override { return info_; }
    Result<std::unique_ptr<engine::RequestHandle>> Submit(engine::Request,
                                                          std::shared_ptr<engine::EventSink>) override {
      return Fail(Code::kUnavailable, "hangs");
    }
    std::vector<engine::RankStats> Stats() const override { return {{}}; }
    Status Health() const override { return {}; }
    Status ResetPrefixCache() override { return {}; }
    void Control(ControlRequest, engine::ControlDone done) override { kept.push_back(std::move(done)); }
    void Drain(TimePoint) override {}
    std::vector<engine::ControlDone> kept;
    engine::ModelInfo info_{.vocab_size = 8, .max_model_len = 8};
  } engine;
  const session::Session session({}, engine, nullptr);
  MetricsRegistry registry;
  ServeOptions options;
  options.http.host = "127.0.0.1";
  options.http.port = 0;
  options.served_model_names = {"m"};
  options.liveness_timeout = std::chrono::milliseconds(50);
  const auto server = std::move(*ApiServer::Open(options, registry));
  server->Serve(session);
  http::ClientOptions to;
  to.port = server->port();
  const auto client = std::move(*http::Client::Create(to));
  for (int i = 0; i < 2; ++i) {
    const auto response = *client->Fetch({"GET", "/liveness"});
    EXPECT_EQ(response.status, 503);
    EXPECT_EQ(response.body, R"({"status":"engine_unresponsive"})");
  }
  engine.kept.front()(ControlState());  // an answer that comes too late is nobody's
  EXPECT_EQ(client->Fetch({"GET", "/liveness"})->status, 503);
  House house;
  EXPECT_EQ(house.Get("/liveness").body, R"({"status":"ok"})");
}

TEST(Rl, KeysGuardWhatReplacesTheModel) {
  ServeOptions options;
  options.api_keys = {"k"};
  House house({}, options);
  for (const char* path : {"/pause", "/resume", "/update_weights", "/reload_weights", "/init_broadcaster",
                           "/chat/completions/tokens"})
    EXPECT_EQ(house.Post(path, "{}").status, 401) << path;
  EXPECT_EQ(house.Post("/pause", "", {{"Authorization", "Bearer k"}}).status, 200);
  EXPECT_EQ(house.Get("/is_paused").status, 200);
}

}  // namespace
}  // namespace cadre::serve
