// A client on the threads of a server.
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "http/client.h"
#include "http/server.h"

namespace cadre::http {
namespace {

TEST(Client, RunsOnTheThreadsOfAServerAndGoesBeforeIt) {
  ServerOptions options;
  options.host = "127.0.0.1";
  options.port = 0;
  options.num_threads = 2;
  Client* back = nullptr;  // to the server itself
  const auto server =
      std::move(*Server::Start(options, [&](Request request, std::shared_ptr<ResponseWriter> writer) {
        if (request.path == "/never") {
          writer->OnDisconnect([writer] {});  // keeps it
          return;
        }
        if (request.path == "/leaf") {
          Response response;
          response.body = Format("{}", std::hash<std::thread::id>()(std::this_thread::get_id()));
          return writer->Send(std::move(response));
        }
        // Passes on what the leaf says; by a sink that runs on this very thread.
        struct Pass final : ResponseSink {
          void OnHead(int, const Headers&) override {}
          void OnBody(std::string_view bytes) override { body += bytes; }
          void OnDone(Status status) override {
            Response response;
            response.status = status && std::this_thread::get_id() == thread ? 200 : 500;
            response.body = body;
            writer->Send(std::move(response));
          }
          std::shared_ptr<ResponseWriter> writer;
          std::thread::id thread = std::this_thread::get_id();
          std::string body;
        };
        const auto pass = std::make_shared<Pass>();
        pass->writer = writer;
        back->Send({"GET", "/leaf"}, pass);
      }));
  ClientOptions to;
  to.port = server->port();
  auto lent = std::move(*Client::Create(to, server.get()));
  back = lent.get();
  const auto outside = std::move(*Client::Create(to));
  for (int i = 0; i < 20; ++i) EXPECT_EQ(outside->Fetch({"GET", "/"})->status, 200);
  // A limit on the whole answer; and a client that goes while a call runs.
  ClientRequest slow{"GET", "/never"};
  slow.total_timeout = std::chrono::milliseconds(150);
  const auto late = lent->Fetch(slow);
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().code, Code::kDeadlineExceeded);
  struct Ends final : ResponseSink {
    void OnHead(int, const Headers&) override {}
    void OnBody(std::string_view) override {}
    void OnDone(Status status) override { code = status ? -1 : static_cast<int>(status.error().code); }
    std::atomic<int> code{-2};
  };
  const auto ends = std::make_shared<Ends>();
  lent->Send({"GET", "/never"}, ends);
  lent.reset();
  EXPECT_EQ(ends->code, static_cast<int>(Code::kCancelled));
  EXPECT_EQ(outside->Fetch({"GET", "/leaf"})->status, 200);  // the server's threads go on
}

}  // namespace
}  // namespace cadre::http
