#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <set>
#include <thread>

#include "serve/house_testing.h"
#include "serve/openai/schema.h"
#include "serve/routes.h"

namespace cadre::serve {
namespace {

using testing::HasSubstr;

TEST(Serve, RoutesThatAreNotThere) {
  House house;
  const http::Response lost = house.Get("/v1/nothing");
  EXPECT_EQ(lost.status, 404);
  EXPECT_EQ(At(Parsed(lost.body), "error.type"), Json("NotFoundError"));
  const http::Response wrong = house.Get("/v1/completions");
  EXPECT_EQ(wrong.status, 405);
  EXPECT_EQ(*http::FindHeader(wrong.headers, "Allow"), "POST");
  EXPECT_EQ(At(Parsed(wrong.body), "error.code"), Json(405));
  const http::Response missing = house.Post("/v1/embeddings", "{}");
  EXPECT_EQ(missing.status, 501);
  EXPECT_THAT(missing.body, HasSubstr("not built yet"));
  EXPECT_EQ(house.Get("/v1/responses/abc").status, 501);
  EXPECT_EQ(house.Get("/v1/responses/").status, 404);
  EXPECT_EQ(house.Post("/reset_prefix_cache", "").status, 404);
  ServeOptions dev;
  dev.dev_mode = true;
  House open({}, dev);
  EXPECT_EQ(open.Post("/reset_prefix_cache", "").status, 200);
  EXPECT_EQ(open.engine.num_resets(), 1);
}

TEST(Serve, AnswersThatTheModelIsBeingLoaded) {
  MetricsRegistry registry;
  ServeOptions options;
  options.http.host = "127.0.0.1";
  options.http.port = 0;
  options.served_model_names = {"m"};
  const auto server = std::move(*ApiServer::Open(options, registry));
  ServeOptions same_port = options;
  same_port.http.port = server->port();
  EXPECT_FALSE(ApiServer::Open(same_port, registry).has_value());
  http::ClientOptions to;
  to.port = server->port();
  const auto client = std::move(*http::Client::Create(to));
  for (const char* path : {"/health", "/v1/models", "/metrics"}) {
    const auto early = client->Fetch({"GET", path});
    ASSERT_TRUE(early.has_value()) << early.error().message;
    EXPECT_EQ(early->status, 503) << path;
    EXPECT_THAT(early->body, HasSubstr("being loaded"));
  }
  session::FakeEngine engine({});
  const session::Session session({}, engine, nullptr);
  server->Serve(session);
  EXPECT_EQ(client->Fetch({"GET", "/health"})->status, 200);
  server->Stop(Now());
}

TEST(Serve, ApiKeysGuardV1) {
  ServeOptions options;
  options.api_keys = {"first", "second-key"};
  House house({}, options);
  const auto with = [&](const std::string& value) {
    return house.Get("/v1/models", {{"Authorization", value}}).status;
  };
  EXPECT_EQ(house.Get("/v1/models").status, 401);
  EXPECT_EQ(At(Parsed(house.Get("/v1/models").body), "error.type"), Json("AuthenticationError"));
  EXPECT_EQ(with("Bearer first"), 200);
  EXPECT_EQ(with("bearer second-key"), 200);
  for (const char* bad :
       {"Bearer firs", "Bearer firstfirst", "Bearer ", "Bearer", "Basic first", "first", "Bearer second"}) {
    EXPECT_EQ(with(bad), 401) << bad;
  }
  EXPECT_EQ(house.Get("/health").status, 200);
  EXPECT_EQ(house.Get("/v1/nothing").status, 401);
}

TEST(Serve, CorsAndRequestIds) {
  ServeOptions options;
  options.cors.origins = {"https://a.example"};
  options.enable_request_id_headers = true;
  options.root_path = "/llm";
  House house({}, options);
  const auto allowed =
      house.Get("/llm/v1/models", {{"Origin", "https://a.example"}, {"X-Request-Id", "my id\t1"}});
  EXPECT_EQ(allowed.status, 200);
  EXPECT_EQ(*http::FindHeader(allowed.headers, "Access-Control-Allow-Origin"), "https://a.example");
  EXPECT_EQ(*http::FindHeader(allowed.headers, "X-Request-Id"), "my id 1");
  EXPECT_EQ(http::FindHeader(house.Get("/health", {{"Origin", "https://b"}}).headers,
                             "Access-Control-Allow-Origin"),
            nullptr);
  const auto preflight =
      *house.client->Fetch({"OPTIONS",
                            "/v1/models",
                            {{"Origin", "https://a.example"}, {"Access-Control-Request-Method", "POST"}}});
  EXPECT_EQ(preflight.status, 200);
  EXPECT_THAT(*http::FindHeader(preflight.headers, "Access-Control-Allow-Methods"), HasSubstr("POST"));
  const auto got = house.Post("/v1/completions", R"({"prompt":"a"})", {{"X-Request-Id", "abc"}});
  EXPECT_EQ(At(Parsed(got.body), "id"), Json("cmpl-abc"));
  EXPECT_EQ(*http::FindHeader(got.headers, "X-Request-Id"), "abc");
}

TEST(Serve, FullQueueIs429AndComesBack) {
  FakeEngineOptions options;
  options.max_waiting = 0;
  House house(options);
  const http::Response response = house.Post("/v1/completions", R"({"prompt":"a"})");
  EXPECT_EQ(response.status, 429);
  EXPECT_NE(http::FindHeader(response.headers, "Retry-After"), nullptr);
  EXPECT_EQ(At(Parsed(response.body), "error.type"), Json("RateLimitError"));
}

TEST(Serve, EngineFailuresReachTheClient) {
  FakeEngineOptions options;
  options.fail_after = 0;
  House early(options);
  EXPECT_EQ(early.Post("/v1/completions", R"({"prompt":"a","stream":true})").status, 500);
  options.fail_after = 2;
  options.step_time = std::chrono::milliseconds(5);
  House late(options);
  EXPECT_EQ(late.Post("/v1/completions", R"({"prompt":"a","n":2})").status, 500);
  const auto events = late.Stream("/v1/completions", R"({"prompt":"a","stream":true})");
  EXPECT_EQ(At(events.back(), "error.code"), Json(500));
  const auto load = [&] { return At(Parsed(late.Get("/load").body), "server_load"); };
  for (int i = 0; i < 500 && load() != Json(0); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(4));
  EXPECT_EQ(load(), Json(0));  // what was cancelled with it leaves at the engine's next step
}

TEST(Serve, ExceptionsEndTheirRequestAlone) {
  const auto text = std::make_shared<FakeText>();
  House house({}, {}, true, text);
  const std::string small = R"({"prompt":"ab","max_tokens":3)", large = small + std::string(20'000, ' ');
  const auto code = [](const http::Response& response) { return At(Parsed(response.body), "error.code"); };
  text->before_encode = [] { throw std::bad_alloc(); };
  EXPECT_EQ(code(house.Post("/v1/completions", small + "}")), Json(503));
  EXPECT_EQ(code(house.Post("/v1/completions", large + "}")), Json(503));  // on a worker
  EXPECT_EQ(code(house.Post("/tokenize", small + "}")), Json(503));
  text->before_encode = nullptr;
  text->before_push = [] { throw std::runtime_error("no more"); };
  EXPECT_EQ(code(house.Post("/v1/completions", small + "}")), Json(500));
  EXPECT_EQ(code(house.Post("/v1/completions", small + R"(,"stream":true})")), Json(500));
  text->before_push = nullptr;
  EXPECT_EQ(At(house.PostJson("/v1/completions", small + "}"), "choices.0.text"), Json("aba"));
  EXPECT_EQ(house.Get("/health").status, 200);
}

TEST(Serve, DeadEngineIs503) {
  FakeEngineOptions options;
  options.step_time = std::chrono::milliseconds(1);
  House house(options);
  house.engine.Kill("rank 3 was killed by signal 9");
  const http::Response health = house.Get("/health");
  EXPECT_EQ(health.status, 503);
  EXPECT_THAT(health.body, HasSubstr("rank 3 was killed by signal 9"));
  EXPECT_EQ(house.Post("/v1/completions", R"({"prompt":"a"})").status, 503);
}

TEST(Serve, DisconnectCancels) {
  FakeEngineOptions options;
  options.step_time = std::chrono::milliseconds(2);
  House house(options);
  struct Sink : http::ResponseSink {
    void OnHead(int, const http::Headers&) override {}
    void OnBody(std::string_view bytes) override { got += bytes.size(); }
    void OnDone(Status) override {}
    std::atomic<size_t> got{0};
  };
  for (const char* stream : {"true", "false"}) {
    const auto sink = std::make_shared<Sink>();
    const int64_t before = house.engine.num_cancelled();
    const auto call =
        house.client->Send({"POST",
                            "/v1/completions",
                            {},
                            Format(R"({{"prompt":"a","max_tokens":4000,"n":3,"stream":{}}})", stream)},
                           sink);
    for (int i = 0; i < 1000 && house.engine.Stats()[0].num_running < 3; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    call->Cancel();
    for (int i = 0; i < 1000 && house.engine.num_cancelled() < before + 3; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    EXPECT_EQ(house.engine.num_cancelled(), before + 3);
  }
}

TEST(Serve, StopDrains) {
  FakeEngineOptions options;
  options.step_time = std::chrono::milliseconds(10);
  House house(options);
  std::string answer;
  std::thread asking(
      [&] { answer = house.Post("/v1/completions", R"({"prompt":"ab","max_tokens":20})").body; });
  while (house.engine.Stats()[0].num_running == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  std::thread stopping([&] { house.server->Stop(Now() + std::chrono::seconds(10)); });
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  asking.join();
  stopping.join();
  EXPECT_THAT(answer, HasSubstr("abababababababababab"));
  EXPECT_FALSE(house.client->Fetch({"GET", "/health"}).has_value());
}

TEST(Serve, StopAbortsWhatTakesTooLong) {
  FakeEngineOptions options;
  options.step_time = std::chrono::milliseconds(5);
  House house(options);
  std::string answer;
  std::thread asking(
      [&] { answer = house.Post("/v1/completions", R"({"prompt":"ab","max_tokens":4000})").body; });
  while (house.engine.Stats()[0].num_running == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  house.server->Stop(Now() + std::chrono::milliseconds(100));
  asking.join();
  EXPECT_EQ(At(Parsed(answer), "choices.0.finish_reason"), Json("abort"));
}

TEST(Serve, MetricsCarryVllmsNames) {
  House house(House::Saying("abcdef"));
  house.Post("/v1/completions", R"({"prompt":"xy","max_tokens":5,"n":2})");
  const http::Response response = house.Get("/metrics");
  EXPECT_THAT(response.content_type, HasSubstr("text/plain"));
  for (const char* line : {
           "vllm:num_requests_running{engine=\"0\",model_name=\"fake\"} 0",
           "vllm:num_requests_waiting{",
           "vllm:kv_cache_usage_perc{",
           "vllm:num_preemptions_total{",
           "vllm:prefix_cache_queries_total{",
           "vllm:prefix_cache_hits_total{",
           "vllm:prompt_tokens_total{engine=\"0\",model_name=\"fake\"} 4",
           "vllm:generation_tokens_total{engine=\"0\",model_name=\"fake\"} 10",
           "vllm:request_success_total{engine=\"0\",finished_reason=\"length\",model_name=\"fake\"} 2",
           "vllm:time_to_first_token_seconds_count{engine=\"0\",model_name=\"fake\"} 2",
           "vllm:inter_token_latency_seconds_count{engine=\"0\",model_name=\"fake\"} 8",
           "vllm:e2e_request_latency_seconds_count{engine=\"0\",model_name=\"fake\"} 2",
           "vllm:request_queue_time_seconds_count",
           "vllm:request_prefill_time_seconds_count",
           "vllm:request_decode_time_seconds_count",
           "vllm:request_inference_time_seconds_count",
           "vllm:request_time_per_output_token_seconds_count",
           "vllm:request_prompt_tokens_sum{engine=\"0\",model_name=\"fake\"} 4",
           "vllm:request_generation_tokens_bucket{engine=\"0\",model_name=\"fake\",le=\"5\"} 2",
           "vllm:request_params_max_tokens_sum{engine=\"0\",model_name=\"fake\"} 10",
           "vllm:request_max_num_generation_tokens_sum{engine=\"0\",model_name=\"fake\"} 5",
           "vllm:request_prefill_kv_computed_tokens_sum{engine=\"0\",model_name=\"fake\"} 4",
           "vllm:iteration_tokens_total_sum{engine=\"0\",model_name=\"fake\"} 14",
           "vllm:iteration_tokens_total_bucket{engine=\"0\",model_name=\"fake\",le=\"16384\"}",
           "vllm:request_params_n_sum{engine=\"0\",model_name=\"fake\"} 2",
           "vllm:cache_config_info{block_size=\"16\",engine=\"0\",kv_cache_size_tokens=\"16000\",num_gpu_"
           "blocks=\"1000\"} 1",
       }) {
    EXPECT_THAT(response.body, HasSubstr(line));
  }
}

TEST(Serve, MetricsAreOfTheEngineThatServed) {
  FakeEngineOptions options;
  options.num_ranks = 2;
  House house(options);
  for (const int tokens : {3, 4, 3}) {  // ranks 0, 1, 0
    house.Post("/v1/completions", Format(R"({{"prompt":"x","max_tokens":{}}})", tokens));
  }
  const std::string got = house.Get("/metrics").body;
  for (const auto& [engine, tokens] : {std::pair{0, 6}, std::pair{1, 4}}) {
    const std::string labels = Format("{{engine=\"{}\",model_name=\"fake\"}} ", engine);
    EXPECT_THAT(got, HasSubstr("vllm:request_generation_tokens_sum" + labels + std::to_string(tokens)));
    EXPECT_THAT(got,
                HasSubstr("vllm:time_to_first_token_seconds_count" + labels + (engine == 0 ? "2" : "1")));
  }
  // What an engine counts is not counted twice when it is printed twice.
  const std::string again = house.Get("/metrics").body;
  const auto line = [](const std::string& all) {
    const size_t at = all.find("vllm:iteration_tokens_total_count");
    return all.substr(at, all.find('\n', at) - at);
  };
  EXPECT_EQ(line(again), line(got));
}

TEST(Serve, TokenIdsAloneWithoutATokenizer) {
  House house({}, {}, false);
  const Json got = house.PostJson("/v1/completions",
                                  R"({"prompt":[1,2],"max_tokens":3,"logprobs":0,"return_token_ids":true})");
  EXPECT_EQ(At(got, "choices.0.token_ids"), Parsed("[1,2,1]"));
  EXPECT_EQ(At(got, "choices.0.logprobs.tokens"), Parsed(R"(["token_id:1","token_id:2","token_id:1"])"));
  EXPECT_EQ(At(got, "choices.0.text"), Json(""));
  EXPECT_EQ(house.Post("/v1/completions", R"({"prompt":"a"})").status, 400);
  EXPECT_EQ(house.Post("/v1/chat/completions", R"({"messages":[{"role":"user","content":"a"}]})").status,
            400);
  EXPECT_EQ(house.Post("/tokenize", R"({"prompt":"a"})").status, 400);
}

TEST(Serve, LargeBodiesTakeTheWorkersAndHugeOnesAreRefused) {
  ServeOptions options;
  options.http.max_body_bytes = 1 << 20;
  House house({}, options);
  std::string ids = "1";
  for (int i = 0; i < 4000; ++i) ids += ", 2";
  const Json got = house.PostJson("/v1/completions", "{\"prompt\":[" + ids + "],\"max_tokens\":3}");
  EXPECT_EQ(At(got, "usage.prompt_tokens"), Json(4001));
  const http::Response huge = house.Post("/v1/completions", std::string(2 << 20, ' '));
  EXPECT_EQ(huge.status, 400);
  EXPECT_EQ(At(Parsed(huge.body), "error.param"), Json("body"));
}

TEST(Schema, NoFieldIsThereTwiceAndNeutralsAreJson) {
  for (const auto fields : {ChatFields(), CompletionFields(), TokenizeFields(), DetokenizeFields()}) {
    std::set<std::string_view> seen;
    for (const Field& field : fields) {
      EXPECT_TRUE(seen.insert(field.name).second) << field.name;
      EXPECT_EQ(Json::Parse(field.neutral)->Dump(), field.neutral) << field.name;
      EXPECT_EQ(field.use == FieldUse::kWorks, field.note.empty()) << field.name;
    }
  }
}

TEST(Schema, WhatDoesNothingIsSaidOnce) {
  std::vector<std::string> lines;
  FieldNotes notes([&](const std::string& line) { lines.push_back(line); });
  const auto parse = [&](const std::string& body) {
    return ParseBody(body, ChatFields(), notes).has_value();
  };
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(parse(R"({"messages":[],"user":"me","parallel_tool_calls":true,"store":false,"seed":null})"));
  }
  EXPECT_TRUE(parse(R"({"user":null,"session_id":null,"another\nname":null})"));
  EXPECT_THAT(lines,
              testing::ElementsAre(HasSubstr("'user' is accepted and has no effect here: a name for"),
                                   HasSubstr("'parallel_tool_calls'"), HasSubstr("\"store\" is unknown")));
  for (int i = 0; i < 1000; ++i) parse(Format(R"({{"x{}\ny":1}})", i));
  EXPECT_LT(lines.size(), 70u);
  EXPECT_EQ(lines.back().find('\n'), std::string::npos);
  for (const auto fields : {ChatFields(), CompletionFields(), TokenizeFields()}) {
    for (const Field& field : fields) {  // each has its line
      if (field.use != FieldUse::kNoEffect) continue;
      std::string said;
      FieldNotes fresh([&](const std::string& line) { said = line; });
      fresh.NoEffect(field);
      EXPECT_THAT(said, HasSubstr(std::string(field.note)));
    }
  }
}

TEST(Routes, NoneIsThereTwice) {
  std::set<std::string> seen;
  for (const Route& route : Routes()) {
    EXPECT_TRUE(seen.insert(Format("{} {}", route.method, route.path)).second) << route.path;
  }
}

}  // namespace
}  // namespace cadre::serve
