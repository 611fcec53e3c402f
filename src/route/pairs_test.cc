// Requests that several workers have a part in: pairs of prefill and decode, and calls to all.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "route/router.h"
#include "route/stub_testing.h"

namespace cadre::route {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(Pairs, PairsGoThroughPrefillAndDecode) {
  const std::string params =
      R"({"do_remote_prefill":true,"remote_block_ids":[[1,2]],"remote_engine_id":"e"})";
  Stub prefill([&](const http::Request&, const Writer& writer) {
    writer->Send(JsonText(Format(R"({{"id":"p","kv_transfer_params":{}}})", params)));
  });
  Stub decode(Streams(3));
  Options options = House::Quick();
  House::Add(options, {&prefill}, Role::kPrefill);
  House::Add(options, {&decode}, Role::kDecode);
  House house(options, 2);
  const auto heard = house.Open(R"({"prompt":"p","stream":true,"max_tokens":9})");
  ASSERT_TRUE(Eventually([&] { return heard->complete(); }));
  EXPECT_THAT(heard->events(), ElementsAre("0", "1", "2", "[DONE]"));
  ASSERT_EQ(prefill.num_requests(), 1);
  ASSERT_EQ(decode.num_requests(), 1);
  const auto first = prefill.Requests()[0], second = decode.Requests()[0];
  EXPECT_EQ(first.body,
            R"({"prompt":"p","stream":false,"max_tokens":1,"kv_transfer_params":{"do_remote_decode":true,)"
            R"("do_remote_prefill":false,"remote_engine_id":null,"remote_block_ids":null,"remote_host":null,)"
            R"("remote_port":null}})");
  EXPECT_EQ(second.body,
            R"({"prompt":"p","stream":true,"max_tokens":9,"kv_transfer_params":)" + params + "}");
  EXPECT_EQ(*first.Header("X-Request-Id"), *second.Header("X-Request-Id"));
  EXPECT_EQ(house.Fetch("POST", "/tokenize", "{}").status, 200);  // decode's
  EXPECT_EQ(prefill.num_requests(), 1);
  EXPECT_EQ(house.Metric("cadre_router_disagg_decision_total{decision_type=\"prefill-decode\"}"), 1);
}

TEST(Pairs, PairsByIdAloneForP2pNccl) {
  Stub prefill(Answers(200, R"({"id":"p"})")), decode;
  Options options = House::Quick();
  House::Add(options, {&prefill}, Role::kPrefill);
  House::Add(options, {&decode}, Role::kDecode);
  options.workers[0].kv_address = "10.0.0.1:14579";
  options.workers[1].kv_address = "10.0.0.2:14580";
  House house(options, 2);
  const auto got = house.Complete(R"({"prompt":"p"})", {{"X-Request-Id", "mine"}});
  EXPECT_EQ(got.status, 200);
  EXPECT_EQ(*http::FindHeader(got.headers, "X-Request-Id"), "mine");
  const auto first = prefill.Requests()[0], second = decode.Requests()[0];
  EXPECT_EQ(first.body, R"({"prompt":"p","max_tokens":1,"stream":false})");
  EXPECT_EQ(second.body, R"({"prompt":"p"})");
  EXPECT_THAT(*first.Header("X-Request-Id"),
              HasSubstr("___prefill_addr_10.0.0.1:14579___decode_addr_10.0.0.2:14580_"));
  EXPECT_EQ(*first.Header("X-Request-Id"), *second.Header("X-Request-Id"));
  EXPECT_EQ(*first.Header("X-KV-Target"), Format("127.0.0.1:{}", decode.port));
}

TEST(Pairs, ErrorsOfEitherLegOfAPair) {
  const auto good_prefill = Answers(200, R"({"kv_transfer_params":{"remote_engine_id":"e"}})");
  struct Case {
    const char* name;
    Stub::Behave prefill, decode;
    int status;
    int prefills, decodes;
  };
  const Case cases[] = {
      {"the request is at fault", Answers(400, R"({"error":{"message":"too long"}})"), Answers(200, "{}"),
       400, 1, 0},
      {"prefill fails", Answers(500, "{}"), Answers(200, "{}"), 502, 2, 0},
      {"prefill talks nonsense", Answers(200, "nonsense"), Answers(200, "{}"), 502, 2, 0},
      {"prefill has no parameters", Answers(200, "{}"), Answers(200, R"({"a":1})"), 200, 1, 1},
      {"decode refuses", good_prefill, Answers(422, R"({"error":{"message":"no"}})"), 422, 1, 1},
      {"decode says nothing", good_prefill, BreaksAfter(""), 502, 2, 2},
  };
  for (const Case& one : cases) {
    Stub prefill(one.prefill), decode(one.decode);
    Options options = House::Quick();
    House::Add(options, {&prefill}, Role::kPrefill);
    House::Add(options, {&decode}, Role::kDecode);
    options.retry.max_attempts = 2;
    options.health.failure_threshold = 1000;
    House house(options, 2);
    const auto got = house.Complete();
    EXPECT_EQ(got.status, one.status) << one.name << got.body;
    EXPECT_EQ(prefill.num_requests(), one.prefills) << one.name;
    EXPECT_EQ(decode.num_requests(), one.decodes) << one.name;
  }
  // What cannot be rewritten is refused here.
  Stub prefill, decode;
  Options options = House::Quick();
  House::Add(options, {&prefill}, Role::kPrefill);
  House::Add(options, {&decode}, Role::kDecode);
  House house(options, 2);
  for (const char* body : {"", "nonsense", "[1]"}) EXPECT_EQ(house.Complete(body).status, 400) << body;
  // Several prompts: decode alone.
  EXPECT_EQ(house.Complete(R"({"prompt":["a","b"]})").status, 200);
  EXPECT_EQ(prefill.num_requests(), 0);
}

TEST(Pairs, APairTriesAnotherDecodeAndAsksPrefillAgain) {
  Stub prefill(Answers(200, R"({"kv_transfer_params":{"remote_engine_id":"e"}})"));
  Stub bad(Answers(500, "{}")), good;
  Options options = House::Quick();
  House::Add(options, {&prefill}, Role::kPrefill);
  House::Add(options, {&bad, &good}, Role::kDecode);
  House house(options, 3);
  EXPECT_EQ(house.Complete().status, 200);
  EXPECT_EQ(prefill.num_requests(), 2);
  EXPECT_EQ(bad.num_requests(), 1);
  EXPECT_EQ(good.num_requests(), 1);
}

TEST(FanOut, AdminCallsReachAllWorkersAndAnswersAreGathered) {
  Stub a(Answers(200, R"({"status":"paused"})")), b(Answers(200, R"({"status":"paused"})"));
  Options options = House::Quick();
  House::Add(options, {&a, &b}, Role::kPlain);
  House house(options, 2);
  const auto got = house.Fetch("POST", "/pause?mode=keep", R"({"x":1})");
  EXPECT_EQ(got.status, 200);
  const Json body = *Json::Parse(got.body);
  EXPECT_EQ(body.Find("status")->AsString(), "paused");
  EXPECT_EQ(body.Find("workers")->AsArray().size(), 2u);
  for (const Stub* stub : {&a, &b}) {
    ASSERT_EQ(stub->num_requests(), 1);
    EXPECT_EQ(stub->Requests()[0].query, "mode=keep");
    EXPECT_EQ(stub->Requests()[0].body, R"({"x":1})");
  }
  house.Fetch("POST", "/init_broadcaster", R"({"host":"h","server_rank":0})");
  EXPECT_EQ(a.Requests()[1].body, R"({"host":"h","server_rank":0,"num_inference_server":2})");
  EXPECT_EQ(b.Requests()[1].body, R"({"host":"h","server_rank":1,"num_inference_server":2})");
  b.Kill();
  const auto half = house.Fetch("POST", "/update_weights", R"({"weight_dir":"/x"})");
  EXPECT_EQ(half.status, 502);
  const Json said = *Json::Parse(half.body);
  EXPECT_EQ(said.Find("status")->AsString(), "failed");
  EXPECT_EQ(said.Find("workers")->AsArray()[0].Find("status")->AsInt(), 200);
  EXPECT_EQ(said.Find("workers")->AsArray()[1].Find("status")->AsInt(), 0);
}

TEST(FanOut, ModelsAreMerged) {
  Stub a(Answers(200, R"({"object":"list","data":[{"id":"m"},{"id":"n"}]})"));
  Stub b(Answers(200, R"({"object":"list","data":[{"id":"m"},{"id":"o"}]})")), c(Answers(200, "nonsense"));
  Options options = House::Quick();
  House::Add(options, {&a, &b, &c}, Role::kPlain);
  House house(options, 3);
  EXPECT_EQ(house.Fetch("GET", "/v1/models").body,
            R"({"object":"list","data":[{"id":"m"},{"id":"n"},{"id":"o"}]})");
}

TEST(FanOut, RanksOfAServerAreWorkersButOneServer) {
  Stub stub;
  Options options = House::Quick();
  for (int rank = 0; rank < 2; ++rank) {
    options.workers.push_back(*ParseWorkerUrl(Format("{}@{}", stub.Url(), rank), Role::kPlain));
  }
  House house(options, 2);
  house.Complete();
  house.Complete();
  EXPECT_EQ(*stub.Requests()[0].Header("X-data-parallel-rank"), "0");
  EXPECT_EQ(*stub.Requests()[1].Header("X-data-parallel-rank"), "1");
  house.Fetch("POST", "/resume");
  EXPECT_EQ(stub.num_requests(), 3);
}

}  // namespace
}  // namespace cadre::route
