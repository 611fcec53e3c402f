// The routes of adapters, and adapters as models, over an engine that only notes what it is told.
#include <mutex>

#include "serve/house_testing.h"

namespace cadre::serve {
namespace {

using engine::ControlRequest;
using engine::ControlState;
using engine::WeightOrder;
using testing::HasSubstr;
using Kind = WeightOrder::Kind;

struct Told {
  std::mutex mutex;
  std::vector<WeightOrder> orders;
  std::vector<std::string> adapters;  // of requests
  Result<ControlState> answer = ControlState{};

  FakeEngineOptions Options() {
    FakeEngineOptions options;
    options.control = [this](const ControlRequest& order) {
      const std::lock_guard lock(mutex);
      orders.push_back(order.weights);
      return answer;
    };
    options.next_token = [this](const engine::Request& request, int) -> int32_t {
      const std::lock_guard lock(mutex);
      adapters.push_back(request.adapter);
      return FakeText::kEos;
    };
    return options;
  }
};

ServeOptions WithLora(bool runtime) {
  ServeOptions options;
  options.enable_lora = true;
  options.allow_runtime_lora = runtime;
  return options;
}

TEST(Lora, OrdersOfBothShapes) {
  Told told;
  House house(told.Options(), WithLora(true));
  EXPECT_EQ(house.Post("/v1/load_lora_adapter", R"({"lora_name":"a","lora_path":"/p"})").body,
            "Success: LoRA adapter 'a' added successfully.");
  EXPECT_EQ(told.orders.back(), (WeightOrder{.kind = Kind::kLoadAdapter, .folder = "/p", .name = "a"}));
  house.Post("/v1/load_lora_adapter", R"({"lora_name":"a","lora_path":"/p","load_inplace":true})");
  EXPECT_TRUE(told.orders.back().in_place);
  EXPECT_EQ(house.PostJson("/load_lora_adapter", R"({"lora_name":"a","lora_path":"/p"})"),
            Parsed(R"({"status":"ok"})"));
  EXPECT_TRUE(told.orders.back().in_place);
  EXPECT_EQ(house.Post("/v1/unload_lora_adapter", R"({"lora_name":"a","lora_int_id":3})").body,
            "Success: LoRA adapter 'a' removed successfully.");
  EXPECT_EQ(told.orders.back(), (WeightOrder{.kind = Kind::kUnloadAdapter, .name = "a"}));
  const size_t count = told.orders.size();
  for (const char* body : {"", "{}", R"({"lora_name":"a"})", R"({"lora_path":"/p"})",
                           R"({"lora_name":7,"lora_path":"/p"})", R"({"lora_name":"fake","lora_path":"/p"})",
                           R"({"lora_name":"a","lora_path":"/p","is_3d_lora_weight":true})"}) {
    EXPECT_EQ(house.Post("/v1/load_lora_adapter", body).status, 400) << body;
    EXPECT_EQ(house.Post("/load_lora_adapter", body).status, 400) << body;
  }
  EXPECT_EQ(house.Post("/v1/unload_lora_adapter", "{}").status, 400);
  EXPECT_EQ(told.orders.size(), count);
}

TEST(Lora, WhatTheEngineRefusesKeepsItsCode) {
  Told told;
  House house(told.Options(), WithLora(true));
  const struct {
    Code code;
    int status;
  } cases[] = {{Code::kNotFound, 404},
               {Code::kInvalidArgument, 400},
               {Code::kUnsupported, 400},
               {Code::kDataLoss, 400},
               {Code::kUnavailable, 503}};
  for (const auto& c : cases) {
    told.answer = Fail(c.code, "because");
    const http::Response answer = house.Post("/load_lora_adapter", R"({"lora_name":"a","lora_path":"/p"})");
    EXPECT_EQ(answer.status, c.status);
    EXPECT_THAT(answer.body, HasSubstr("because"));
  }
}

TEST(Lora, Gates) {
  Told told;
  const std::string body = R"({"lora_name":"a","lora_path":"/p"})";
  House plain(told.Options());
  House closed(told.Options(), WithLora(false));
  for (const char* path : {"/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/load_lora_adapter"})
    EXPECT_THAT(plain.Post(path, body).body, HasSubstr("--enable-lora")) << path;
  for (const char* path : {"/v1/load_lora_adapter", "/v1/unload_lora_adapter"}) {
    EXPECT_EQ(closed.Post(path, body).status, 404) << path;
    EXPECT_THAT(closed.Post(path, body).body, HasSubstr("VLLM_ALLOW_RUNTIME_LORA_UPDATING")) << path;
  }
  EXPECT_TRUE(told.orders.empty());
  EXPECT_EQ(closed.Post("/load_lora_adapter", body).status, 200);
  ServeOptions locked = WithLora(true);
  locked.api_keys = {"secret"};
  House keyed(told.Options(), locked);
  for (const char* path : {"/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/load_lora_adapter"}) {
    EXPECT_EQ(keyed.Post(path, body).status, 401) << path;
    EXPECT_EQ(keyed.Post(path, body, {{"Authorization", "Bearer secret"}}).status, 200) << path;
  }
}

TEST(Lora, AnAdapterIsAModel) {
  Told told;
  House house(told.Options(), WithLora(false));
  const std::pair<const char*, std::string> asks[] = {
      {"/v1/completions", R"("prompt":"a"})"},
      {"/v1/chat/completions", R"("messages":[{"role":"user","content":"a"}]})"},
      {"/inference/v1/generate", R"("token_ids":[1]})"}};
  for (const auto& [path, rest] : asks) {
    house.PostJson(path, R"({"model":"mine",)" + rest);
    EXPECT_EQ(told.adapters.back(), "mine") << path;
    house.PostJson(path, R"({"model":"also-fake",)" + rest);
    EXPECT_EQ(told.adapters.back(), "") << path;
    house.PostJson(path, "{" + rest);
    EXPECT_EQ(told.adapters.back(), "") << path;
    EXPECT_EQ(house.Post(path, R"({"model":"",)" + rest).status, 404) << path;
  }
  EXPECT_EQ(At(house.PostJson("/v1/completions", R"({"model":"mine","prompt":"a"})"), "model"), Json("mine"));
  EXPECT_EQ(At(house.PostJson("/v1/completions", R"({"prompt":"a"})"), "model"), Json("fake"));
  House plain(told.Options());
  for (const auto& [path, rest] : asks)
    EXPECT_EQ(plain.Post(path, R"({"model":"mine",)" + rest).status, 404) << path;
}

}  // namespace
}  // namespace cadre::serve
