// Breaker, health, addresses, bodies of pairs, discovery: what needs no network.
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>

#include "route/breaker.h"
#include "route/discovery.h"
#include "route/fan_out.h"
#include "route/messages.h"
#include "route/pairing.h"

namespace cadre::route {
namespace {

using std::chrono::seconds;

TEST(Health, ThresholdsInARow) {
  HealthState health(HealthOptions{.failure_threshold = 2, .success_threshold = 2});
  EXPECT_FALSE(health.healthy());
  EXPECT_TRUE(health.Success());  // the first time one is enough
  EXPECT_FALSE(health.Failure());
  EXPECT_FALSE(health.Success());  // not in a row
  EXPECT_FALSE(health.Failure());
  EXPECT_TRUE(health.Failure());
  EXPECT_FALSE(health.healthy());
  EXPECT_FALSE(health.Success());
  EXPECT_FALSE(health.Failure());
  EXPECT_FALSE(health.Success());
  EXPECT_TRUE(health.Success());
}

TEST(Breaker, OpensTriesAndCloses) {
  Breaker breaker(
      {.failure_threshold = 3, .success_threshold = 2, .open_time = seconds(60), .window = seconds(120)});
  TimePoint now = Now();
  EXPECT_FALSE(breaker.Failure(now));
  EXPECT_FALSE(breaker.Failure(now));
  breaker.Success(now);  // not in a row
  EXPECT_FALSE(breaker.Failure(now));
  EXPECT_FALSE(breaker.Failure(now));
  EXPECT_TRUE(breaker.Failure(now));
  EXPECT_FALSE(breaker.Admits(now + seconds(59)));
  now += seconds(60);
  EXPECT_TRUE(breaker.Admits(now));
  EXPECT_TRUE(breaker.Begin(now));
  EXPECT_FALSE(breaker.Admits(now));  // one trial at a time
  EXPECT_TRUE(breaker.Failure(now));
  now += seconds(60);
  for (int i = 0; i < 2; ++i) {
    EXPECT_TRUE(breaker.Admits(now));
    EXPECT_TRUE(breaker.Begin(now));
    EXPECT_EQ(breaker.Success(now), i == 1);
  }
  EXPECT_FALSE(breaker.Begin(now));  // no trial any more
  EXPECT_EQ(breaker.state(now), Breaker::State::kClosed);
}

TEST(Breaker, OldFailuresDoNotCountAndATrialMayVanish) {
  Breaker breaker(
      {.failure_threshold = 2, .success_threshold = 1, .open_time = seconds(1), .window = seconds(10)});
  TimePoint now = Now();
  EXPECT_FALSE(breaker.Failure(now));
  EXPECT_FALSE(breaker.Failure(now + seconds(11)));
  EXPECT_TRUE(breaker.Failure(now + seconds(12)));
  now += seconds(14);
  EXPECT_TRUE(breaker.Begin(now));
  breaker.TrialGone();
  EXPECT_TRUE(breaker.Admits(now));
}

TEST(Address, ReadsWhatPeopleWrite) {
  const auto read = [](const char* text) { return ParseWorkerUrl(text, Role::kPlain)->Name(); };
  EXPECT_EQ(read("http://10.0.0.1:8000"), "http://10.0.0.1:8000");
  EXPECT_EQ(read("10.0.0.1:8000"), "http://10.0.0.1:8000");
  EXPECT_EQ(read("http://w:8000/v1/"), "http://w:8000");
  EXPECT_EQ(read("https://w"), "https://w:443");
  EXPECT_EQ(read("http://[::1]:9"), "http://[::1]:9");
  EXPECT_EQ(read("http://w:8000@3"), "http://w:8000@3");
  for (const char* bad :
       {"", "http://", "http://w:0", "http://w:99999", "http://w:8000/other", "grpc://w:1", "http://[::1",
        "http://w:8000@x", "http://u:p@w:1@", "http://a b", "http://w\r\nX: y"}) {
    EXPECT_FALSE(ParseWorkerUrl(bad, Role::kPlain)) << bad;
  }
}

TEST(Address, FilesNameRolesWherePairsAreWanted) {
  const auto plain = ParseWorkerFile("# all\nhttp://a:1\n\n worker http://b:2 # two\n", false);
  ASSERT_TRUE(plain);
  ASSERT_EQ(plain->size(), 2u);
  EXPECT_EQ((*plain)[1].Name(), "http://b:2");
  const auto pairs = ParseWorkerFile("prefill http://a:1\r\ndecode http://b:2", true);
  ASSERT_TRUE(pairs);
  EXPECT_EQ((*pairs)[1].role, Role::kDecode);
  const auto wrong = ParseWorkerFile("prefill http://a:1\nhttp://b:2", true);
  ASSERT_FALSE(wrong);
  EXPECT_NE(wrong.error().message.find("line 2"), std::string::npos) << wrong.error().message;
  EXPECT_FALSE(ParseWorkerFile("prefill http://a:1", false));
  EXPECT_FALSE(ParseWorkerFile("worker http://a:1 http://b:1", false));
}

TEST(Pairing, TheBodiesAreThoseOfTheToyProxy) {
  const Json body = *Json::Parse(
      R"({"model":"m","prompt":"p","stream":true,"stream_options":{"include_usage":true},"max_tokens":50,)"
      R"("max_completion_tokens":50,"min_tokens":5,"seed":9007199254740993})");
  EXPECT_EQ(
      PrefillBody(body, false).Dump(),
      R"({"model":"m","prompt":"p","stream":false,"max_tokens":1,"max_completion_tokens":1,)"
      R"("seed":9007199254740993,"kv_transfer_params":{"do_remote_decode":true,"do_remote_prefill":false,)"
      R"("remote_engine_id":null,"remote_block_ids":null,"remote_host":null,"remote_port":null}})");
  EXPECT_EQ(PrefillBody(*Json::Parse(R"({"prompt":"p"})"), true).Dump(),
            R"({"prompt":"p","max_tokens":1,"stream":false})");
  EXPECT_EQ(PrefillBody(
                *Json::Parse(R"({"token_ids":[1],"sampling_params":{"max_tokens":9,"min_tokens":3}})"), true)
                .Dump(),
            R"({"token_ids":[1],"sampling_params":{"max_tokens":1},"stream":false})");
  // Both shapes of the answer travel on as they are.
  for (
      const char* shape :
      {R"({"do_remote_prefill":true,"remote_block_ids":[3,4,5],"remote_engine_id":"e"})",
       R"({"do_remote_prefill":true,"remote_block_ids":[[3],[4,5]],"remote_engine_id":"e_dp0","remote_port":5600})"}) {
    const auto params = TransferParams(Format(R"({{"id":"x","kv_transfer_params":{}}})", shape));
    ASSERT_TRUE(params);
    EXPECT_EQ(params->Dump(), shape);
    const Json decode = DecodeBody(body, *params);
    EXPECT_EQ(decode.Find("kv_transfer_params")->Dump(), shape);
    EXPECT_EQ(decode.Find("stream")->AsBool(), true);
    EXPECT_EQ(decode.Find("max_tokens")->AsInt(), 50);
  }
  EXPECT_TRUE(TransferParams(R"({"kv_transfer_params":null})")->is_null());
  EXPECT_EQ(TransferParams(R"({"choices":[{"kv_transfer_params":{"a":1}}]})")->Dump(), R"({"a":1})");
  for (const char* garbage : {"", "[]", "hello", "{\"choices\":[1]", "3"})
    EXPECT_FALSE(TransferParams(garbage)) << garbage;
  EXPECT_TRUE(TransferParams(R"({"choices":[7]})")->is_null());
}

TEST(Pairing, SeveralPromptsAreForDecodeAlone) {
  EXPECT_TRUE(IsForPair(*Json::Parse(R"({"prompt":[1,2,3]})")));
  EXPECT_TRUE(IsForPair(*Json::Parse(R"({"messages":[]})")));
  EXPECT_FALSE(IsForPair(*Json::Parse(R"({"prompt":["a","b"]})")));
  EXPECT_FALSE(IsForPair(*Json::Parse(R"({"prompt":[[1],[2]]})")));
}

TEST(Messages, HeadersOfTheConnectionStay) {
  const http::Headers in = {{"Host", "a"},
                            {"Connection", "keep-alive, X-Hop"},
                            {"X-Hop", "1"},
                            {"Authorization", "Bearer k"},
                            {"content-length", "3"},
                            {"Transfer-Encoding", "chunked"},
                            {"X-data-parallel-rank", "2"},
                            {"x-request-id", "r"}};
  const http::Headers wanted = {{"Authorization", "Bearer k"}, {"X-data-parallel-rank", "2"}};
  EXPECT_EQ(ForwardedHeaders(in), wanted);
}

TEST(Messages, TargetsAndIdsCannotSplitTheRequest) {
  http::Request request;
  request.path = "/a b\r\nX: y/\xc3\xa9?#%";
  request.query = "q=1%20";
  EXPECT_EQ(TargetOf(request), "/a%20b%0D%0AX:%20y/%C3%A9%3F%23%25?q=1%20");
  request.headers = {{"X-Request-Id", "mine"}};
  EXPECT_EQ(RequestId(request, {"X-Trace", "x-request-id"}), "mine");
  request.headers = {{"X-Request-Id", std::string(1000, 'x')}};
  EXPECT_EQ(RequestId(request, {"X-Request-Id"}).size(), 32u);
  EXPECT_NE(NewRequestId(), NewRequestId());
}

TEST(FanOut, RanksOfBroadcasterAreFilledIn) {
  EXPECT_EQ(*BroadcasterBody(R"({"host":"h","server_rank":9})", 1, 3),
            R"({"host":"h","server_rank":1,"num_inference_server":3})");
  EXPECT_FALSE(BroadcasterBody(R"({"rank_offset":0})", 0, 2));
  EXPECT_TRUE(BroadcasterBody(R"({"rank_offset":0})", 0, 1));
}

std::vector<std::string> Names(const std::optional<std::vector<WorkerAddress>>& found) {
  std::vector<std::string> names;
  if (!found) return {"unchanged"};
  for (const auto& address : *found) names.push_back(address.Name());
  return names;
}

TEST(Discovery, FileChangesAreSeenAndBadFilesKeepTheWorkers) {
  const auto path = std::filesystem::temp_directory_path() / Format("cadre_workers_{}", getpid());
  const auto write = [&](const char* text) { std::ofstream(path) << text; };
  Options options;
  options.workers = {*ParseWorkerUrl("http://fixed:1", Role::kPlain)};
  options.worker_file = path;
  Discovery discovery(options, ResolveHost);
  TimePoint now = Now();
  EXPECT_EQ(Names(discovery.Poll(now)), (std::vector<std::string>{"http://fixed:1"}));  // no file yet
  write("http://a:1\n");
  EXPECT_EQ(Names(discovery.Poll(now)), std::vector<std::string>{"unchanged"});  // not due
  now += seconds(1);
  EXPECT_EQ(Names(discovery.Poll(now)), (std::vector<std::string>{"http://fixed:1", "http://a:1"}));
  write("http://a:1\nnonsense nonsense\n");
  EXPECT_EQ(Names(discovery.Poll(now += seconds(1))), std::vector<std::string>{"unchanged"});
  std::filesystem::remove(path);
  EXPECT_EQ(Names(discovery.Poll(now += seconds(1))), std::vector<std::string>{"unchanged"});
  write("http://b:2\n");
  EXPECT_EQ(Names(discovery.Poll(now += seconds(1))),
            (std::vector<std::string>{"http://fixed:1", "http://b:2"}));
  write("");
  EXPECT_EQ(Names(discovery.Poll(now += seconds(1))), (std::vector<std::string>{"http://fixed:1"}));
  std::filesystem::remove(path);
}

TEST(Discovery, EachAddressOfAServiceIsAWorker) {
  std::vector<std::string> addresses = {"10.0.0.1", "10.0.0.2"};
  bool works = true;
  const Resolver resolver = [&](const std::string& host) -> Result<std::vector<std::string>> {
    EXPECT_EQ(host, "moe.default.svc");
    if (!works) return Fail(Code::kNotFound, "no such name");
    return addresses;
  };
  Options options;
  options.dns = {{*ParseWorkerUrl("http://moe.default.svc:8000", Role::kPlain)}};
  Discovery discovery(options, resolver);
  TimePoint now = Now();
  EXPECT_EQ(Names(discovery.Poll(now)),
            (std::vector<std::string>{"http://10.0.0.1:8000", "http://10.0.0.2:8000"}));
  works = false;
  EXPECT_EQ(Names(discovery.Poll(now += seconds(10))), std::vector<std::string>{"unchanged"});
  works = true;
  addresses = {"10.0.0.2", "fd00::1"};
  EXPECT_EQ(Names(discovery.Poll(now += seconds(10))),
            (std::vector<std::string>{"http://10.0.0.2:8000", "http://[fd00::1]:8000"}));
}

TEST(Discovery, TheSystemResolvesNumbers) {
  EXPECT_EQ(*ResolveHost("127.0.0.1"), std::vector<std::string>{"127.0.0.1"});
  EXPECT_FALSE(ResolveHost("no-such-host.invalid"));
}

}  // namespace
}  // namespace cadre::route
