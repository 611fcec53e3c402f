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

// A pair of stubs that say that they can be asked at once.
std::string Place(const char* engine, int num_ranks = 1, bool push = true) {
  Json::Array ranks;
  for (int rank = 0; rank < num_ranks; ++rank) {
    ranks.push_back(Json::Object{{"rank", rank},
                                 {"engine_id", Format("{}{}", engine, rank)},
                                 {"host", "10.0.0.1"},
                                 {"port", 5600 + rank},
                                 {"tp_size", 1}});
  }
  return Json(Json::Object{{"enabled", true}, {"push", push}, {"ranks", std::move(ranks)}}).Dump();
}

Options PushOptions(std::vector<Stub*> prefill, std::vector<Stub*> decode, int num_ranks = 1) {
  Options options = House::Quick();
  options.health.failure_threshold = 1000;
  std::vector<const Stub*> p, d;
  for (Stub* stub : prefill) {
    stub->SetKvTransfer(Place("p", num_ranks));
    p.push_back(stub);
  }
  for (Stub* stub : decode) {
    stub->SetKvTransfer(Place("d"));
    d.push_back(stub);
  }
  House::Add(options, p, Role::kPrefill);
  House::Add(options, d, Role::kDecode);
  return options;
}

constexpr char kPushed[] = "cadre_router_kv_transfers_total{mode=\"push\"}";
constexpr char kPulled[] = "cadre_router_kv_transfers_total{mode=\"pull\"}";

TEST(Push, BothAreAskedAtOnceAndMeetByOneId) {
  Keeper of_prefill, of_decode;  // nobody answers before both have been asked
  Stub prefill(of_prefill.Behave()), decode(of_decode.Behave());
  House house(PushOptions({&prefill}, {&decode}), 2);
  const auto heard = house.Open(R"({"prompt":"p","max_tokens":9,"min_tokens":2})");
  ASSERT_TRUE(Eventually([&] { return of_prefill.size() == 1 && of_decode.size() == 1; }));
  const auto first = prefill.Requests()[0], second = decode.Requests()[0];
  EXPECT_EQ(first.body,
            R"({"prompt":"p","max_tokens":1,"stream":false,"kv_transfer_params":{"do_remote_decode":true,)"
            R"("push":true}})");
  EXPECT_EQ(second.body,
            R"({"prompt":"p","max_tokens":9,"min_tokens":2,"kv_transfer_params":{"do_remote_prefill":true,)"
            R"("push":true,"remote_engine_id":"p0","remote_host":"10.0.0.1","remote_port":5600}})");
  EXPECT_EQ(*first.Header("X-Request-Id"), *second.Header("X-Request-Id"));
  EXPECT_EQ(first.Header("X-data-parallel-rank"), nullptr);
  of_prefill[0]->Send(JsonText("{}"));
  of_decode[0]->Send(JsonText(R"({"the":"answer"})"));
  ASSERT_TRUE(Eventually([&] { return heard->complete(); }));
  EXPECT_EQ(heard->body(), R"({"the":"answer"})");
  EXPECT_EQ(house.Metric(kPushed), 1);
  EXPECT_EQ(house.Metric(kPulled), 0);
  EXPECT_EQ(house.Metric("cadre_router_push_recomputed_total"), 0);
}

TEST(Push, ThePrefillRankIsChosenAndNamed) {
  Stub prefill(Answers(200, "{}")), decode(Answers(200, "{}"));
  House house(PushOptions({&prefill}, {&decode}, 3), 2);
  for (int i = 0; i < 6; ++i) EXPECT_EQ(house.Complete().status, 200);
  EXPECT_EQ(house.Complete(R"({"prompt":"p"})", {{"X-data-parallel-rank", "2"}}).status, 200);
  ASSERT_TRUE(Eventually([&] { return prefill.num_requests() == 7; }));
  for (int i = 0; i < 7; ++i) {
    const int rank = i < 6 ? i % 3 : 2;
    const auto of_prefill = prefill.Requests()[static_cast<size_t>(i)];
    EXPECT_EQ(*of_prefill.Header("X-data-parallel-rank"), Format("{}", rank));
    const auto of_decode = decode.Requests()[static_cast<size_t>(i)];
    EXPECT_THAT(of_decode.body, HasSubstr(Format(R"("remote_engine_id":"p{}")", rank)));
    EXPECT_THAT(of_decode.body, HasSubstr(Format(R"("remote_port":{})", 5600 + rank)));
  }
  // A rank that is not there: the pair pulls, and the worker says what it thinks of it.
  EXPECT_EQ(house.Complete(R"({"prompt":"p"})", {{"X-data-parallel-rank", "7"}}).status, 200);
  EXPECT_EQ(house.Metric(kPulled), 1);
}

TEST(Push, PairsThatCannotPullUnlessToldOtherwise) {
  Stub silent(Answers(200, R"({"kv_transfer_params":{"remote_engine_id":"e"}})")), decode;
  Options options = PushOptions({&silent}, {&decode});
  silent.SetKvTransfer("");  // not Cadre
  {
    House house(options, 2);
    EXPECT_EQ(house.Complete().status, 200);
    EXPECT_THAT(decode.Requests()[0].body, HasSubstr(R"("kv_transfer_params":{"remote_engine_id":"e"})"));
    EXPECT_EQ(house.Metric(kPulled), 1);
    EXPECT_EQ(house.Metric(kPushed), 0);
  }
  options.kv_transfer_mode = KvTransferMode::kPush;
  {
    House house(options, 2);
    const auto got = house.Complete();
    EXPECT_EQ(got.status, 503);
    EXPECT_THAT(got.body, HasSubstr("--kv-transfer-mode push: prefill " + silent.Url()));
  }
  silent.SetKvTransfer(Place("p"));
  decode.SetKvTransfer(Place("d", 1, false));
  House house(options, 2);
  EXPECT_THAT(house.Complete().body, HasSubstr("decode " + decode.Url()));
  decode.SetKvTransfer(Place("d"));
  options.kv_transfer_mode = KvTransferMode::kPull;
  House pull(options, 2);
  EXPECT_EQ(pull.Complete().status, 200);
  EXPECT_EQ(pull.Metric(kPulled), 1);
  // Prompts that each side may cut in its own way are not pushed.
  options.kv_transfer_mode = KvTransferMode::kAuto;
  House automatic(options, 2);
  EXPECT_EQ(automatic.Complete(R"({"prompt":"p","truncate_prompt_tokens":-1})").status, 200);
  EXPECT_EQ(automatic.Metric(kPulled), 1);
}

TEST(Push, APrefillThatFailsEndsWithAnotherOrWithDecodeAlone) {
  // Decode waits for what does not come, unless it is asked without a source.
  Keeper waiting, kept;
  const auto waits = [&](const http::Request& request, const Writer& writer) {
    if (request.body.find("push") != request.body.npos) return waiting.Behave()(request, writer);
    writer->Send(JsonText(R"({"computed":"here"})"));
  };
  {
    Stub bad(Answers(500, "{}")), decode(waits);
    House house(PushOptions({&bad}, {&decode}), 2);
    const auto got = house.Complete(R"({"prompt":"p"})");
    EXPECT_EQ(got.status, 200);
    EXPECT_EQ(got.body, R"({"computed":"here"})");
    ASSERT_EQ(decode.num_requests(), 2);
    EXPECT_EQ(decode.Requests()[1].body, R"({"prompt":"p"})");
    EXPECT_NE(*decode.Requests()[0].Header("X-Request-Id"), *decode.Requests()[1].Header("X-Request-Id"));
    EXPECT_TRUE(Eventually([&] { return decode.num_disconnects == 1; }));  // the one that waited
    EXPECT_EQ(house.Metric("cadre_router_push_recomputed_total"), 1);
  }
  Stub dies(kept.Behave()), decode(waits);
  {
    House house(PushOptions({&dies}, {&decode}), 2);
    const auto heard = house.Open(R"({"prompt":"p"})");
    ASSERT_TRUE(Eventually([&] { return kept.size() == 1 && decode.num_requests() == 1; }));
    dies.Kill();
    ASSERT_TRUE(Eventually([&] { return heard->complete(); }));
    EXPECT_EQ(heard->body(), R"({"computed":"here"})");
  }
  // With another prefill the pair is asked anew.
  Stub bad(Answers(503, "{}")), good(Answers(200, "{}"));
  std::atomic<int> count{0};
  Stub second([&](const http::Request& request, const Writer& writer) {
    if (++count < 2) return waiting.Behave()(request, writer);
    writer->Send(JsonText(request.body));
  });
  House house(PushOptions({&bad, &good}, {&second}), 3);
  const auto got = house.Complete(R"({"prompt":"p"})");
  EXPECT_EQ(got.status, 200);
  EXPECT_THAT(got.body, HasSubstr(R"("push":true)"));
  EXPECT_EQ(house.Metric("cadre_router_retries_total"), 1);
  EXPECT_EQ(house.Metric("cadre_router_push_recomputed_total"), 0);
}

TEST(Push, ARefusedRequestIsRefusedOnceAndTheOtherSideIsLetGo) {
  Keeper of_prefill, of_decode;
  Stub refuses(Answers(422, R"({"error":{"message":"too long"}})"));
  {
    Stub decode(of_decode.Behave());
    House house(PushOptions({&refuses}, {&decode}), 2);
    const auto got = house.Complete();
    EXPECT_EQ(got.status, 422);
    EXPECT_THAT(got.body, HasSubstr("too long"));
    EXPECT_TRUE(Eventually([&] { return decode.num_disconnects == decode.num_requests(); }));
  }
  Stub prefill(of_prefill.Behave());
  {
    House house(PushOptions({&prefill}, {&refuses}), 2);
    EXPECT_EQ(house.Complete().status, 422);
    EXPECT_TRUE(Eventually([&] { return prefill.num_disconnects == prefill.num_requests(); }));
  }
  // A client that leaves ends both.
  Stub p(of_prefill.Behave()), d(of_decode.Behave());
  House house(PushOptions({&p}, {&d}), 2);
  std::shared_ptr<http::ClientCall> call;
  const auto heard = house.Open("{}", &call);
  ASSERT_TRUE(Eventually([&] { return p.num_requests() == 1 && d.num_requests() == 1; }));
  call->Cancel();
  EXPECT_TRUE(Eventually([&] { return p.num_disconnects == 1 && d.num_disconnects == 1; }));
}

TEST(Push, ADecodeThatFailsTakesItsPrefillAlong) {
  Keeper of_prefill;
  Stub prefill(of_prefill.Behave()), bad(Answers(500, "{}")), good(Answers(200, R"({"good":1})"));
  House house(PushOptions({&prefill}, {&bad, &good}), 3);
  EXPECT_EQ(house.Complete().body, R"({"good":1})");
  ASSERT_TRUE(Eventually([&] { return of_prefill.size() == 2; }));
  EXPECT_TRUE(Eventually([&] { return prefill.num_disconnects == 1; }));  // of the first attempt
  EXPECT_NE(*prefill.Requests()[0].Header("X-Request-Id"), *prefill.Requests()[1].Header("X-Request-Id"));
  // Decode had all it needed: prefill may still end by itself, and is not cut off.
  of_prefill[1]->Send(JsonText("{}"));
  const std::string ended = Format(
      "cadre_router_worker_requests_total{{outcome=\"ok\",role=\"prefill\",worker=\"{}\"}}", prefill.Url());
  EXPECT_TRUE(Eventually([&] { return house.Metric(ended) == 1; }));
  EXPECT_EQ(prefill.num_disconnects, 1);
}

TEST(Selective, ShortPromptsAndThoseThatDecodeHoldsGoToDecodeAlone) {
  Stub prefill(Answers(200, R"({"kv_transfer_params":{"remote_engine_id":"e"}})")), decode;
  Options options = House::Quick();
  House::Add(options, {&prefill}, Role::kPrefill);
  House::Add(options, {&decode}, Role::kDecode);
  options.prefill_threshold = 100;
  options.decode_policy.name = "cache_aware";
  House house(options, 2);
  const auto prefills_of = [&](const std::string& prompt) {
    const int before = prefill.num_requests();
    EXPECT_EQ(house.Complete(R"({"prompt":")" + prompt + R"("})").status, 200);
    return prefill.num_requests() - before;
  };
  EXPECT_EQ(prefills_of(std::string(396, 'a')), 0);  // 99 tokens of four bytes
  EXPECT_EQ(prefills_of(std::string(400, 'b')), 1);
  const std::string long_one(1280, 'c');
  EXPECT_EQ(prefills_of(long_one), 1);
  EXPECT_EQ(prefills_of(long_one), 0);  // decode has it now
  EXPECT_EQ(prefills_of(long_one + std::string(300, 'd')), 0);
  EXPECT_EQ(prefills_of(long_one + std::string(500, 'e')), 1);
  std::string ids;
  for (int i = 0; i < 99; ++i) ids += Format("{}{}", i == 0 ? "" : ",", 1000 + i);
  EXPECT_EQ(house.Complete(R"({"prompt":[)" + ids + "]}").status, 200);  // ids are counted as they are
  const int before = prefill.num_requests();
  EXPECT_EQ(house.Complete(R"({"prompt":[)" + ids + ",5]}").status, 200);
  EXPECT_EQ(prefill.num_requests(), before);  // but for one, decode has these too
  EXPECT_EQ(house.Metric("cadre_router_disagg_decision_total{decision_type=\"decode-only\"}"), 5);
  EXPECT_EQ(house.Metric("cadre_router_disagg_decision_total{decision_type=\"prefill-decode\"}"), 3);
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
