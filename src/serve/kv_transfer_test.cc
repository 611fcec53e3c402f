// kv_transfer_params and request ids of pairs, as they enter a request and leave an answer.
#include "serve/openai/kv_transfer.h"

#include "serve/house_testing.h"

namespace cadre::serve {
namespace {

using testing::HasSubstr;

FakeEngineOptions WithHandOff(bool by_request_id = false, bool produces = true, bool consumes = true) {
  FakeEngineOptions options;
  options.model.kv_transfer.enabled = true;
  options.model.kv_transfer.by_request_id = by_request_id;
  options.model.kv_transfer.produces = produces;
  options.model.kv_transfer.consumes = consumes;
  return options;
}

constexpr const char* kAsk =
    R"({"prompt":"hello","max_tokens":1,"kv_transfer_params":{"do_remote_decode":true,"do_remote_prefill":false,)"
    R"("remote_engine_id":null,"remote_block_ids":null,"remote_host":null,"remote_port":null}})";

std::string Fetch(const std::string& more = "") {
  return R"({"prompt":"not this","max_tokens":2,"kv_transfer_params":{"do_remote_prefill":true,)"
         R"("do_remote_decode":false,"remote_engine_id":"e","remote_request_id":"r-0","remote_host":"10.0.0.1",)"
         R"("remote_port":5600,"tp_size":2,"remote_num_tokens":3,"remote_block_ids":[[7,8]],)"
         R"("remote_token_ids":[65,66,67])" +
         more + "}}";
}

TEST(KvTransferParams, PrefillHoldsItsPrompt) {
  House house(WithHandOff());
  const Json answer = house.PostJson("/v1/completions", kAsk);
  ASSERT_NE(answer.Find("kv_transfer_params"), nullptr);
  const auto kv = house.engine.last_request().kv_transfer;
  ASSERT_TRUE(kv.has_value());
  EXPECT_TRUE(kv->hold && !kv->fetch && !kv->with_answer && !kv->by_prompt);
}

TEST(KvTransferParams, DecodeTakesTheTokensForItsPrompt) {
  House house(WithHandOff());
  house.PostJson("/v1/completions", Fetch());
  const engine::Request request = house.engine.last_request();
  ASSERT_TRUE(request.kv_transfer.has_value());
  EXPECT_TRUE(request.kv_transfer->fetch && !request.kv_transfer->hold);
  EXPECT_EQ(request.kv_transfer->source_host, "10.0.0.1");
  EXPECT_EQ(request.kv_transfer->source_port, 5600);
  EXPECT_EQ(request.kv_transfer->source_request, "r-0");
  EXPECT_EQ(request.kv_transfer->num_tokens, 3);
  EXPECT_THAT(request.prompt.vector(), testing::ElementsAre(65, 66, 67));
  // A chat's messages too.
  std::string chat = Fetch();
  chat.replace(chat.find(R"("prompt":"not this")"), 19, R"("messages":[{"role":"user","content":"x"}])");
  house.PostJson("/v1/chat/completions", chat);
  EXPECT_THAT(house.engine.last_request().prompt.vector(), testing::ElementsAre(65, 66, 67));
}

TEST(KvTransferParams, ATurnFetchesTheBeginningThatIsTheSame) {
  House house(WithHandOff());
  std::string body = Fetch();
  body.replace(body.find(R"("do_remote_prefill":true,"do_remote_decode":false)"), 49,
               R"("do_remote_prefill":false,"do_remote_decode":true)");
  body.replace(body.find(R"("prompt":"not this")"), 19, R"("prompt":[65,66,9,10])");
  house.PostJson("/v1/completions", body);
  const auto kv = house.engine.last_request().kv_transfer;
  ASSERT_TRUE(kv.has_value());
  EXPECT_TRUE(kv->hold && kv->fetch);
  EXPECT_EQ(kv->num_tokens, 2);
  EXPECT_THAT(house.engine.last_request().prompt.vector(), testing::ElementsAre(65, 66, 9, 10));
}

TEST(KvTransferParams, WrongMembersAreNamed) {
  House house(WithHandOff());
  for (const auto& [member, value] :
       std::vector<std::pair<std::string, std::string>>{{"do_remote_prefill", "1"},
                                                        {"remote_port", "65536"},
                                                        {"remote_port", "\"5600\""},
                                                        {"remote_block_ids", "[[[1]]]"},
                                                        {"remote_block_ids", "{}"},
                                                        {"remote_token_ids", "[1,\"a\"]"},
                                                        {"remote_token_ids", "[1.5]"},
                                                        {"remote_num_tokens", "-1"},
                                                        {"tp_size", "true"},
                                                        {"remote_host", "[]"},
                                                        {"remote_request_id", "{}"}}) {
    const http::Response answer =
        house.Post("/v1/completions", Fetch(Format(",\"{}\":{}", member, value)));  // the last one counts
    EXPECT_EQ(answer.status, 400) << member << value;
    EXPECT_THAT(answer.body, HasSubstr("kv_transfer_params." + member)) << value;
  }
  EXPECT_THAT(house.Post("/v1/completions", Fetch(R"(,"remote_token_ids":[999999])")).body,
              HasSubstr("kv_transfer_params.remote_token_ids"));
  EXPECT_EQ(
      house.Post("/v1/completions", R"({"prompt":["a","b"],"kv_transfer_params":{"do_remote_decode":true}})")
          .status,
      400);
}

TEST(KvTransferParams, AServerWithoutHandOffSaysWhichFlag) {
  House house;
  const http::Response answer = house.Post("/v1/completions", kAsk);
  EXPECT_EQ(answer.status, 400);
  EXPECT_THAT(answer.body, HasSubstr("--kv-transfer-config"));
  for (const char* nothing : {"{}", "null", R"({"do_remote_decode":false,"do_remote_prefill":null})"}) {
    const Json whole = house.PostJson(
        "/v1/completions", Format(R"({{"prompt":"x","max_tokens":1,"kv_transfer_params":{}}})", nothing));
    EXPECT_TRUE(whole.Find("kv_transfer_params")->is_null());
    EXPECT_FALSE(house.engine.last_request().kv_transfer.has_value());
  }
}

TEST(KvTransferParams, RequestIdsOfPairs) {
  const auto pair = ParsePairId("___prefill_addr_10.0.0.1:21001___decode_addr_[fe80::1]:22001_0a1b2c");
  ASSERT_TRUE(pair.has_value());
  EXPECT_EQ(pair->prefill_host, "10.0.0.1");
  EXPECT_EQ(pair->prefill_port, 21001);
  EXPECT_EQ(pair->decode_host, "fe80::1");
  EXPECT_EQ(pair->decode_port, 22001);
  for (const char* other :
       {"", "abc", "___prefill_addr_", "___prefill_addr_a:1", "___prefill_addr_a:1___decode_addr_",
        "___prefill_addr_a:0___decode_addr_b:1_x", "___prefill_addr_a:1___decode_addr_b:99999_x",
        "___prefill_addr_:1___decode_addr_b:1_x", "___prefill_addr_a:1x___decode_addr_b:1_x"}) {
    EXPECT_FALSE(ParsePairId(other).has_value()) << other;
  }
  const http::Headers id = {{"X-Request-Id", "___prefill_addr_a:1___decode_addr_b:2_x"}};
  struct Case {
    bool produces, consumes;
    int max_tokens;
    bool holds;
  };
  for (const Case& c : {Case{true, false, 1, true},
                        {true, false, 9, true},
                        {false, true, 1, false},
                        {true, true, 1, true},
                        {true, true, 5, false}}) {
    House house(WithHandOff(true, c.produces, c.consumes));
    house.Post("/v1/completions", Format(R"({{"prompt":"x","max_tokens":{}}})", c.max_tokens), id);
    const auto kv = house.engine.last_request().kv_transfer;
    ASSERT_TRUE(kv.has_value());
    EXPECT_EQ(kv->hold, c.holds);
    EXPECT_EQ(kv->fetch, !c.holds);
    EXPECT_TRUE(kv->by_prompt);
    EXPECT_EQ(kv->source_port, kv->fetch ? 1 : 0);
  }
}

TEST(KvTransferParams, AnIdsPortNamesTheRank) {
  engine::KvTransferInfo info{.first_port = 21001, .tp_size = 2, .dp_size = 3};
  EXPECT_EQ(info.ReplicaAt(21001), 0);
  EXPECT_EQ(info.ReplicaAt(21003), 1);
  EXPECT_EQ(info.ReplicaAt(21005), 2);
  EXPECT_EQ(info.ReplicaAt(21007), 0);
  EXPECT_EQ(info.ReplicaAt(21000), 0);
  info.dp_size = 1;
  EXPECT_EQ(info.ReplicaAt(21001), -1);
  FakeEngineOptions options = WithHandOff(true, true, false);
  options.model.kv_transfer.first_port = 21001;
  options.model.kv_transfer.dp_size = 2;
  House house(options);
  http::Headers headers = {{"X-Request-Id", "___prefill_addr_a:21002___decode_addr_b:2_x"}};
  house.Post("/v1/completions", R"({"prompt":"x","max_tokens":1})", headers);
  EXPECT_EQ(house.engine.last_request().data_parallel_rank, 1);
  headers[0].second = "___prefill_addr_a:21002___decode_addr_b:2_y";
  headers.emplace_back("X-data-parallel-rank", "0");  // who says so knows better
  house.Post("/v1/completions", R"({"prompt":"x","max_tokens":1})", headers);
  EXPECT_EQ(house.engine.last_request().data_parallel_rank, 0);
}

TEST(KvTransferParams, AnIdRunsOnceInARole) {
  RunningIds ids;
  auto first = ids.Claim("a", true);
  EXPECT_NE(first, nullptr);
  EXPECT_EQ(ids.Claim("a", true), nullptr);
  EXPECT_NE(ids.Claim("a", false), nullptr);
  auto copy = first;
  first.reset();
  EXPECT_EQ(ids.Claim("a", true), nullptr);
  copy.reset();
  EXPECT_NE(ids.Claim("a", true), nullptr);
}

TEST(KvTransferParams, TheAnswersObjectIsTheNextRequests) {
  std::string text;
  AppendKvTransferParams(text, engine::HeldKv{.engine_id = "e\"1",
                                              .request_id = "r",
                                              .host = "h",
                                              .port = 5600,
                                              .tp_size = 2,
                                              .expires_s = 12.5,
                                              .blocks = {3, 4},
                                              .tokens = {9}});
  const Json json = Parsed(text);
  EXPECT_EQ(At(json, "do_remote_prefill"), Json(true));
  EXPECT_EQ(At(json, "do_remote_decode"), Json(false));
  EXPECT_EQ(At(json, "remote_engine_id"), Json("e\"1"));
  EXPECT_EQ(At(json, "remote_block_ids.0.1"), Json(4));
  EXPECT_EQ(At(json, "remote_token_ids.0"), Json(9));
  EXPECT_EQ(At(json, "remote_num_tokens"), Json(1));
  text.clear();
  AppendKvTransferParams(text, std::nullopt);
  EXPECT_EQ(text, "null");
}

}  // namespace
}  // namespace cadre::serve
