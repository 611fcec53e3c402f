// The router between a client and stubs that stream, fail, crawl, die and talk nonsense.
#include "route/router.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "route/stub_testing.h"

namespace cadre::route {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(Router, ForwardsBodyHeadersAndQueryAndEchoesTheId) {
  Stub stub;
  Options options = House::Quick();
  House::Add(options, {&stub}, Role::kPlain);
  options.api_key = "of-the-router";
  House house(options, 1);
  const auto got =
      house.Fetch("POST", "/v1/completions?a=b%20c", R"({"prompt":"x"})",
                  {{"X-Request-Id", "mine"}, {"X-data-parallel-rank", "3"}, {"Authorization", "Bearer k"}});
  EXPECT_EQ(got.status, 200);
  EXPECT_EQ(*http::FindHeader(got.headers, "X-Request-Id"), "mine");
  ASSERT_EQ(stub.num_requests(), 1);
  const auto seen = stub.Requests()[0];
  EXPECT_EQ(seen.body, R"({"prompt":"x"})");
  EXPECT_EQ(seen.query, "a=b%20c");
  EXPECT_EQ(*seen.Header("X-Request-Id"), "mine");
  EXPECT_EQ(*seen.Header("X-data-parallel-rank"), "3");
  EXPECT_EQ(*seen.Header("Authorization"), "Bearer k");
  EXPECT_EQ(*seen.Header("Host"), Format("127.0.0.1:{}", stub.port));
  const auto second = house.Fetch("POST", "/tokenize", "{}");
  EXPECT_EQ(http::FindHeader(second.headers, "X-Request-Id")->size(), 32u);
  EXPECT_EQ(*stub.Requests()[1].Header("Authorization"), "Bearer of-the-router");
  EXPECT_EQ(*stub.Requests()[1].Header("X-Request-Id"), *http::FindHeader(second.headers, "X-Request-Id"));
}

TEST(Router, StreamsComeThroughAsTheyAreWritten) {
  std::atomic<bool> go_on{false};
  Stub stub([&](const http::Request&, const Writer& writer) {
    std::thread([&, writer] {
      writer->StartStream(200, "text/event-stream", {{"X-Of-Worker", "1"}});
      writer->Write("data: first\n\n");
      Eventually([&] { return go_on.load(); });
      writer->Write("data: second\n\n");
      writer->End();
    }).detach();
  });
  Options options = House::Quick();
  House::Add(options, {&stub}, Role::kPlain);
  House house(options, 1);
  const auto heard = house.Open("{}");
  EXPECT_TRUE(
      Eventually([&] { return heard->events().size() == 1; }));  // while the second is not written yet
  EXPECT_FALSE(heard->done());
  go_on = true;
  EXPECT_TRUE(Eventually([&] { return heard->complete(); }));
  EXPECT_THAT(heard->events(), ElementsAre("first", "second"));
  EXPECT_EQ(heard->header("X-Of-Worker"), "1");
  EXPECT_EQ(heard->header("Content-Type"), "text/event-stream");
}

TEST(Router, AClientThatLeavesEndsTheWorkersRequestAtOnce) {
  Keeper never;
  Stub stub([&](const http::Request& request, const Writer& writer) {
    if (request.body == "silent") return never.Behave()(request, writer);
    Streams(5000, std::chrono::milliseconds(2))(request, writer);
  });
  Options options = House::Quick();
  House::Add(options, {&stub}, Role::kPlain);
  House house(options, 1);
  for (const char* body : {"silent", "talking"}) {
    const int before = stub.num_disconnects, seen = stub.num_requests();
    std::shared_ptr<http::ClientCall> call;
    const auto heard = house.Open(body, &call);
    ASSERT_TRUE(Eventually([&] { return stub.num_requests() == seen + 1; }));
    if (std::string(body) == "talking") {
      ASSERT_TRUE(Eventually([&] { return !heard->events().empty(); }));
    }
    const TimePoint left = Now();
    call->Cancel();
    ASSERT_TRUE(Eventually([&] { return stub.num_disconnects == before + 1; })) << body;
    EXPECT_LT(SecondsSince(left), 2) << body;
  }
  EXPECT_TRUE(Eventually([&] {
    return house.Metric(Format(
               "cadre_router_worker_requests_total{{outcome=\"cancelled\",role=\"worker\",worker=\"{}\"}}",
               stub.Url())) == 2;
  })) << house.router->Metrics();
}

TEST(Router, RoundRobinOverThree) {
  Stub a, b, c;
  Options options = House::Quick();
  House::Add(options, {&a, &b, &c}, Role::kPlain);
  House house(options, 3);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(house.Complete().status, 200);
  EXPECT_EQ(a.num_requests(), 2);
  EXPECT_EQ(b.num_requests(), 2);
  EXPECT_EQ(c.num_requests(), 1);
}

TEST(Router, SessionsStayWithConsistentHash) {
  Stub a, b, c;
  Options options = House::Quick();
  options.policy.name = "consistent_hash";
  House::Add(options, {&a, &b, &c}, Role::kPlain);
  House house(options, 3);
  for (int session = 0; session < 20; ++session) {
    std::string first;
    for (int i = 0; i < 3; ++i) {
      const auto got = house.Complete("{}", {{"X-Session-ID", Format("s{}", session)}});
      if (i == 0) first = got.body;
      EXPECT_EQ(got.body, first);
    }
  }
  EXPECT_GT(a.num_requests(), 0);
  EXPECT_GT(b.num_requests(), 0);
  EXPECT_GT(c.num_requests(), 0);
}

TEST(Router, FailuresBeforeTheFirstByteGoToAnotherWorker) {
  Stub good;
  struct Case {
    const char* name;
    Stub::Behave behave;
  };
  const std::vector<Case> cases = {
      {"answers 500", Answers(500, "{}")},
      {"answers 503", Answers(503, "{}")},
      {"answers 429", Answers(429, "{}")},
      {"begins a stream and says nothing", BreaksAfter("")},
      {"ends a stream without an event",
       [](const http::Request&, const Writer& writer) {
         writer->StartStream(200, "text/event-stream", {});
         writer->End();
       }},
  };
  for (const auto& [name, behave] : cases) {
    Stub bad(behave);
    Options options = House::Quick();
    House::Add(options, {&bad, &good}, Role::kPlain);
    House house(options, 2);
    const int before = good.num_requests();
    for (int i = 0; i < 4; ++i) {
      const auto got = house.Complete();
      EXPECT_EQ(got.status, 200) << name;
      EXPECT_THAT(got.body, HasSubstr(Format("{}", good.port))) << name;
    }
    EXPECT_EQ(good.num_requests(), before + 4) << name;
    EXPECT_GT(bad.num_requests(), 0) << name;
    EXPECT_EQ(house.Metric("cadre_router_retries_total"), bad.num_requests()) << name;
  }
}

TEST(Router, WhatTheRequestIsToBlameForIsNotTriedAgain) {
  for (const int status : {400, 401, 404, 422, 501}) {
    Stub bad(Answers(status, R"({"error":{"message":"of the worker"}})"));
    Stub other(Answers(status, R"({"error":{"message":"of the worker"}})"));
    Options options = House::Quick();
    House::Add(options, {&bad, &other}, Role::kPlain);
    House house(options, 2);
    const auto got = house.Complete();
    EXPECT_EQ(got.status, status);
    EXPECT_THAT(got.body, HasSubstr("of the worker"));
    EXPECT_EQ(bad.num_requests() + other.num_requests(), 1) << status;
  }
}

TEST(Router, TheLastWorkersOwnErrorComesThrough) {
  Stub one(Answers(500, R"({"error":{"message":"it broke"}})")),
      two(Answers(500, R"({"error":{"message":"it broke"}})"));
  Options options = House::Quick();
  House::Add(options, {&one, &two}, Role::kPlain);
  House house(options, 2);
  const auto got = house.Complete();
  EXPECT_EQ(got.status, 500);
  EXPECT_THAT(got.body, HasSubstr("it broke"));
  EXPECT_EQ(one.num_requests() + two.num_requests(), 2);
}

TEST(Router, AStreamThatBreaksEndsWithAnErrorEvent) {
  Stub stub(BreaksAfter("data: one\n\ndata: tw"));
  Options options = House::Quick();
  House::Add(options, {&stub}, Role::kPlain);
  House house(options, 1);
  const auto heard = house.Open("{}");
  ASSERT_TRUE(Eventually([&] { return heard->complete(); }));  // a proper end of the HTTP message
  const auto events = heard->events();
  ASSERT_EQ(events.size(), 3u);
  EXPECT_EQ(events[0], "one");
  const auto error = Json::Parse(events[2]);
  ASSERT_TRUE(error) << events[2];
  EXPECT_EQ(error->Find("error")->Find("code")->AsInt(), 502);
  EXPECT_THAT(error->Find("error")->Find("message")->AsString(), HasSubstr("broke off"));
  EXPECT_EQ(stub.num_requests(), 1);  // not asked again
}

// A server that answers raw bytes and closes.
class RawServer {
 public:
  explicit RawServer(std::string bytes) : bytes_(std::move(bytes)), fd_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    bind(fd_, reinterpret_cast<sockaddr*>(&address), size);
    listen(fd_, 16);
    getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size);
    port = ntohs(address.sin_port);
    thread_ = std::thread([this] {
      while (true) {
        const int one = accept(fd_, nullptr, nullptr);
        if (one < 0) return;
        char request[4096];
        const ssize_t got = read(one, request, sizeof request);
        const std::string_view text(request, got > 0 ? static_cast<size_t>(got) : 0);
        const std::string answer =
            text.find(" /health ") != text.npos ? "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" : bytes_;
        [[maybe_unused]] const ssize_t sent = write(one, answer.data(), answer.size());
        close(one);
      }
    });
  }
  ~RawServer() {
    shutdown(fd_, SHUT_RDWR);
    thread_.join();
    close(fd_);
  }
  int port = 0;

 private:
  const std::string bytes_;
  const int fd_;
  std::thread thread_;
};

TEST(Router, NonsenseAndTruncatedAnswersAreErrorsNeverEmptySuccesses) {
  for (const char* bytes :
       {"", "hello\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n"}) {
    RawServer raw(bytes);
    Options options = House::Quick();
    options.workers = {*ParseWorkerUrl(Format("127.0.0.1:{}", raw.port), Role::kPlain)};
    options.retry.max_attempts = 2;
    options.breaker.enabled = false;
    options.health.failure_threshold = 1000;
    House house(options, 1);
    const auto got = house.Complete();
    EXPECT_EQ(got.status, 502) << bytes << got.body;
    EXPECT_THAT(got.body, HasSubstr("\"error\"")) << bytes;
  }
}

TEST(Router, ADeadWorkerIsPassedOverAndComesBack) {
  auto a = std::make_unique<Stub>();
  Stub b;
  const int port = a->port;
  Options options = House::Quick();
  House::Add(options, {a.get(), &b}, Role::kPlain);
  House house(options, 2);
  a->Kill();
  for (int i = 0; i < 6; ++i) EXPECT_EQ(house.Complete().status, 200);
  ASSERT_TRUE(Eventually([&] { return house.router->num_healthy() == 1; }));
  const auto health = house.Fetch("GET", "/health");
  EXPECT_EQ(health.status, 200);
  EXPECT_THAT(health.body, HasSubstr("degraded"));
  EXPECT_EQ(house.Fetch("GET", "/health?require=all").status, 503);
  a = std::make_unique<Stub>(Stub::Behave(), port);
  ASSERT_TRUE(Eventually([&] { return house.router->num_healthy() == 2; }));
  for (int i = 0; i < 4; ++i) EXPECT_EQ(house.Complete().status, 200);
  EXPECT_EQ(a->num_requests(), 2);
}

TEST(Router, NobodyHealthyIs503WithTheReason) {
  Stub stub;
  stub.healthy = false;
  Options options = House::Quick();
  House::Add(options, {&stub}, Role::kPlain);
  House house(options, 0);
  ASSERT_TRUE(Eventually([&] { return stub.num_probes > 0; }));
  const auto got = house.Complete();
  EXPECT_EQ(got.status, 503);
  EXPECT_THAT(got.body, HasSubstr("no worker is healthy now; 1 known"));
  EXPECT_EQ(stub.num_requests(), 0);
  EXPECT_EQ(house.Fetch("GET", "/health").status, 503);
  EXPECT_EQ(house.Fetch("GET", "/v1/models").status, 503);
  stub.healthy = true;
  ASSERT_TRUE(Eventually([&] { return house.router->num_healthy() == 1; }));
  EXPECT_EQ(house.Complete().status, 200);
}

TEST(Router, TheBreakerKeepsRequestsFromAWorkerThatOnlyProbesWell) {
  Stub bad(Answers(500, "{}")), good;
  Options options = House::Quick();
  options.breaker = {.failure_threshold = 3, .success_threshold = 1, .open_time = std::chrono::hours(1)};
  House::Add(options, {&bad, &good}, Role::kPlain);
  House house(options, 2);
  for (int i = 0; i < 20; ++i) EXPECT_EQ(house.Complete().status, 200);
  EXPECT_EQ(bad.num_requests(), 3);
  EXPECT_THAT(house.Fetch("GET", "/workers").body, HasSubstr(R"("circuit_breaker":"open")"));
}

TEST(Router, ASlowWorkerEndsAtTheTimeOutWith504) {
  Keeper kept;
  Stub stub(kept.Behave());
  Options options = House::Quick();
  options.request_timeout = std::chrono::milliseconds(300);
  House::Add(options, {&stub}, Role::kPlain);
  House house(options, 1);
  const TimePoint start = Now();
  const auto got = house.Complete();
  EXPECT_EQ(got.status, 504);
  EXPECT_LT(SecondsSince(start), 5);
  EXPECT_EQ(stub.num_requests(), 1);
}

TEST(Router, LimitsOfBodiesAndOfRequestsAtOnce) {
  Keeper kept;
  Stub stub(kept.Behave());
  Options options = House::Quick();
  options.http.max_body_bytes = 1000;
  options.max_concurrent_requests = 1;
  House::Add(options, {&stub}, Role::kPlain);
  House house(options, 1);
  EXPECT_EQ(house.Complete(std::string(2000, 'x')).status, 413);
  const auto first = house.Open("{}");
  ASSERT_TRUE(Eventually([&] { return kept.size() == 1; }));
  EXPECT_EQ(house.Complete().status, 429);
  kept[0]->Send(JsonText("{}"));
  EXPECT_TRUE(Eventually([&] { return first->complete(); }));
  const auto next = house.Open("{}");
  EXPECT_TRUE(Eventually([&] { return kept.size() == 2; }));  // its place is free again
}

TEST(Router, WorkersComeAndGoWhileStreamsRun) {
  Stub a(Streams(100, std::chrono::milliseconds(5))), b(Streams(1));
  Options options = House::Quick();
  const std::string path = testing::TempDir() + Format("/cadre_router_{}", getpid());
  const auto name = [&](const Stub& stub) {
    const std::string next = path + ".new";
    FILE* file = fopen(next.c_str(), "w");
    fputs((stub.Url() + "\n").c_str(), file);
    fclose(file);
    rename(next.c_str(), path.c_str());
  };
  name(a);
  options.worker_file = path;
  House house(options, 1);
  const auto long_one = house.Open("{}");
  ASSERT_TRUE(Eventually([&] { return !long_one->events().empty(); }));
  name(b);
  ASSERT_TRUE(
      Eventually([&] { return house.Fetch("GET", "/workers").body.find(b.Url()) != std::string::npos; }));
  ASSERT_TRUE(Eventually([&] { return house.router->num_healthy() == 1; }));
  const auto short_one = house.Open("{}");
  EXPECT_TRUE(Eventually([&] { return short_one->complete(); }));
  EXPECT_EQ(b.num_requests(), 1);
  EXPECT_TRUE(Eventually([&] { return long_one->complete(); }));  // on the worker that has left
  EXPECT_EQ(long_one->events().size(), 101u);
  name(a);  // and it may come back
  ASSERT_TRUE(
      Eventually([&] { return house.Fetch("GET", "/workers").body.find(a.Url()) != std::string::npos; }));
  unlink(path.c_str());
}

TEST(Router, StopLetsRunningStreamsEndAndCutsTheRest) {
  Stub stub([](const http::Request& request, const Writer& writer) {
    Streams(request.body == "short" ? 50 : 2000, std::chrono::milliseconds(5))(request, writer);
  });
  Options options = House::Quick();
  House::Add(options, {&stub}, Role::kPlain);
  House house(options, 1);
  const auto ends = house.Open("short"), endless = house.Open("long");
  ASSERT_TRUE(Eventually([&] { return !ends->events().empty() && !endless->events().empty(); }));
  house.router->Stop(Now() + std::chrono::seconds(3));
  EXPECT_TRUE(Eventually([&] { return ends->complete(); }));
  EXPECT_TRUE(Eventually([&] { return endless->done(); }));
  EXPECT_FALSE(endless->complete());
  EXPECT_EQ(ends->events().size(), 51u);
}

TEST(Router, ManyAtOnceOnTwoThreadsWithAWorkerThatDies) {
  auto dying = std::make_unique<Stub>(Streams(20, std::chrono::milliseconds(2)));
  Stub staying(Streams(20, std::chrono::milliseconds(2)));
  Options options = House::Quick();
  options.http.num_threads = 2;
  House::Add(options, {dying.get(), &staying}, Role::kPlain);
  House house(options, 2);
  std::vector<std::shared_ptr<Heard>> all;
  for (int i = 0; i < 60; ++i) all.push_back(house.Open("{}"));
  ASSERT_TRUE(Eventually([&] { return dying->num_requests() > 10; }));
  dying->Kill();
  int whole = 0, with_error = 0;
  for (const auto& heard : all) {
    ASSERT_TRUE(Eventually([&] { return heard->done(); }));
    const auto events = heard->events();
    ASSERT_FALSE(events.empty());
    if (events.back() == "[DONE]") ++whole;
    if (events.back().find("\"error\"") != std::string::npos) ++with_error;
  }
  EXPECT_EQ(whole + with_error, 60);
  EXPECT_GE(whole, 30);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(house.Complete().status, 200);
}

TEST(Router, MetricsHaveAPortOfTheirOwnIfAsked) {
  Stub stub;
  Options options = House::Quick();
  House::Add(options, {&stub}, Role::kPlain);
  options.metrics_port = 0;
  House house(options, 1);
  house.Complete();
  EXPECT_THAT(house.Fetch("GET", "/metrics").body, HasSubstr("cadre_router_worker_up"));
  http::ClientOptions to;
  const std::string address = house.router->metrics_address();
  to.port = std::stoi(address.substr(address.rfind(':') + 1));
  const auto client = std::move(*http::Client::Create(to));
  EXPECT_THAT(client->Fetch({"GET", "/metrics"})->body, HasSubstr("cadre_router_worker_first_byte_seconds"));
}

}  // namespace
}  // namespace cadre::route
