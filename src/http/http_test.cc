#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <thread>

#include "http/client.h"
#include "http/server.h"
#include "http/stream_load.h"

namespace cadre::http {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

// A raw socket: what the wire really carries.
class RawClient {
 public:
  explicit RawClient(int port) {
    fd_ = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    const timeval limit = {5, 0};
    setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  }
  ~RawClient() { Close(); }
  void Close() {
    if (fd_ >= 0) close(fd_);
    fd_ = -1;
  }
  void Send(std::string_view text) { (void)!send(fd_, text.data(), text.size(), MSG_NOSIGNAL); }
  // Until `end` has come, or the connection has closed ("<closed>" is appended), or 5 s have passed.
  std::string ReadUntil(std::string_view end) {
    size_t at = 0;
    while ((at = got_.find(end)) == std::string::npos) {
      char buffer[4096];
      const ssize_t n = recv(fd_, buffer, sizeof buffer, 0);
      if (n <= 0) return std::exchange(got_, {}) + (n == 0 ? "<closed>" : "<error>");
      got_.append(buffer, static_cast<size_t>(n));
    }
    std::string out = got_.substr(0, at + end.size());
    got_.erase(0, out.size());
    return out;
  }
  std::string ReadAll() { return ReadUntil("\r\rnever\r\r"); }

 private:
  int fd_ = -1;
  std::string got_;
};

bool Eventually(const std::function<bool()>& condition, std::chrono::milliseconds limit = 5s) {
  const TimePoint end = Now() + limit;
  while (!condition()) {
    if (Now() > end) return false;
    std::this_thread::sleep_for(2ms);
  }
  return true;
}

void Echo(Request request, std::shared_ptr<ResponseWriter> writer) {
  writer->Send({200,
                "text/plain",
                {{"X-Path", request.path}},
                request.method + " " + request.query + " " + request.body});
}

ServerOptions Local() {
  ServerOptions options;
  options.host = "127.0.0.1";
  options.port = 0;
  return options;
}

std::unique_ptr<Server> StartServer(ServerOptions options, Handler handler) {
  auto server = Server::Start(std::move(options), std::move(handler));
  EXPECT_TRUE(server.has_value()) << server.error().message;
  return std::move(*server);
}

std::unique_ptr<Client> MakeClient(const Server& server, int threads = 1) {
  ClientOptions options;
  options.port = server.port();
  options.num_threads = threads;
  return std::move(*Client::Create(options));
}

TEST(Server, AnswersAndKeepsAlive) {
  const auto server = StartServer(Local(), Echo);
  RawClient client(server->port());
  client.Send("POST /a%20b?x=1 HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello");
  const std::string first = client.ReadUntil("hello");
  EXPECT_THAT(first, StartsWith("HTTP/1.1 200 OK\r\n"));
  EXPECT_THAT(first, HasSubstr("X-Path: /a b\r\n"));
  EXPECT_THAT(first, HasSubstr("\r\n\r\nPOST x=1 hello"));
  client.Send("GET /again HTTP/1.1\r\nHost: h\r\n\r\n");
  EXPECT_THAT(client.ReadUntil("GET  "), HasSubstr("X-Path: /again"));
  client.Send("HEAD / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
  const std::string head = client.ReadAll();
  EXPECT_THAT(head, HasSubstr("Content-Length: 6\r\n"));
  EXPECT_THAT(head, testing::EndsWith("\r\n\r\n<closed>"));
}

TEST(Server, PipelinedRequestsAreAnsweredInOrderEvenWhenHandlersAnswerLate) {
  const auto server = StartServer(Local(), [](Request request, std::shared_ptr<ResponseWriter> writer) {
    std::thread([request = std::move(request), writer = std::move(writer)]() mutable {
      std::this_thread::sleep_for(request.path == "/1" ? 60ms : 1ms);
      writer->Send({200, "text/plain", {}, "<" + request.path + ">"});
    }).detach();
  });
  RawClient client(server->port());
  client.Send("GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\nGET /3 HTTP/1.1\r\n\r\n");
  const std::string all = client.ReadUntil("</3>");
  EXPECT_LT(all.find("</1>"), all.find("</2>"));
  EXPECT_LT(all.find("</2>"), all.find("</3>"));
}

// What follows a request arrives while it is answered, in pieces; then the answer leaves while a read is
// under way.
TEST(Server, RequestsThatArriveDuringAnAnswerStayWhole) {
  std::atomic<int> num_requests{0};
  const auto server = StartServer(Local(), [&](Request request, std::shared_ptr<ResponseWriter> writer) {
    ++num_requests;
    std::thread([request = std::move(request), writer = std::move(writer)]() mutable {
      std::this_thread::sleep_for(3ms);
      writer->Send({200,
                    "text/plain",
                    {},
                    "<" + request.body.substr(0, 4) + std::to_string(request.body.size()) + ">"});
    }).detach();
  });
  RawClient client(server->port());
  const std::string body = "body" + std::string(20'000, 'x');
  const std::string one =
      "POST / HTTP/1.1\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
  std::string all;
  for (int i = 0; i < 20; ++i) all += one;
  for (size_t at = 0; at < all.size(); at += 7000) {
    client.Send(std::string_view(all).substr(at, 7000));
    std::this_thread::sleep_for(1ms);
  }
  std::string got;
  for (int i = 0; i < 20; ++i) got += client.ReadUntil("<body20004>");
  EXPECT_EQ(num_requests, 20);
  EXPECT_THAT(got, Not(HasSubstr("400")));
}

TEST(Server, ByteByByteRequestAndChunkedBody) {
  const auto server = StartServer(Local(), Echo);
  RawClient client(server->port());
  for (const char c :
       std::string("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")) {
    client.Send({&c, 1});
  }
  EXPECT_THAT(client.ReadUntil("abcde"), HasSubstr("POST  abcde"));
}

TEST(Server, ExpectContinue) {
  const auto server = StartServer(Local(), Echo);
  RawClient client(server->port());
  client.Send("POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
  EXPECT_EQ(client.ReadUntil("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  client.Send("ok");
  EXPECT_THAT(client.ReadUntil("ok"), HasSubstr("HTTP/1.1 200 OK"));
}

TEST(Server, StreamsChunksAndGoesOnAfterwards) {
  const auto server = StartServer(Local(), [](Request, std::shared_ptr<ResponseWriter> writer) {
    writer->StartStream(200, "text/event-stream", {});
    std::thread([writer = std::move(writer)] {
      for (int i = 0; i < 3; ++i) writer->Write(Format("data: {}\n\n", i));
      writer->End();
    }).detach();
  });
  RawClient client(server->port());
  for (int round = 0; round < 2; ++round) {
    client.Send("GET / HTTP/1.1\r\n\r\n");
    const std::string got = client.ReadUntil("0\r\n\r\n");
    EXPECT_THAT(got, HasSubstr("Transfer-Encoding: chunked\r\n"));
    EXPECT_THAT(got, HasSubstr("9\r\ndata: 0\n\n\r\n9\r\ndata: 1\n\n\r\n9\r\ndata: 2\n\n\r\n0\r\n\r\n"));
  }
  RawClient old(server->port());
  old.Send("GET / HTTP/1.0\r\n\r\n");
  EXPECT_THAT(old.ReadAll(), testing::EndsWith("\r\n\r\ndata: 0\n\ndata: 1\n\ndata: 2\n\n<closed>"));
}

struct BadCase {
  const char* name;
  std::string bytes;
  const char* status;
};

TEST(Server, HostileBytesGetTheirStatusAndClose) {
  ServerOptions options = Local();
  options.max_body_bytes = 100;
  options.max_header_bytes = 1000;
  options.max_header_count = 5;
  options.max_request_line_bytes = 500;
  options.error_response = [](int status, const std::string& message) {
    return Response{status, "application/json", {}, "{\"oops\":\"" + message + "\"}"};
  };
  const auto server = StartServer(options, Echo);
  const std::string many = "A: b\r\nA: b\r\nA: b\r\nA: b\r\nA: b\r\nA: b\r\n";
  for (const BadCase& bad : std::vector<BadCase>{
           {"not http", "hello\r\n\r\n", "400"},
           {"tls on a plain port",
            std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11) + "\r\n\r\n", "400"},
           {"version", "GET / HTTP/3.0\r\n\r\n", "505"},
           {"large body", "POST / HTTP/1.1\r\nContent-Length: 101\r\n\r\n", "413"},
           {"large chunked body",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n65\r\n" + std::string(101, 'x'), "413"},
           {"bad length", "POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", "400"},
           {"two lengths", "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "400"},
           {"length and chunked",
            "POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "400"},
           {"bad chunk", "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "400"},
           {"many headers", "GET / HTTP/1.1\r\n" + many + "\r\n", "431"},
           {"long header", "GET / HTTP/1.1\r\nA: " + std::string(2000, 'x') + "\r\n\r\n", "431"},
           {"long target", "GET /" + std::string(2000, 'x') + " HTTP/1.1\r\n\r\n", "414"},
           {"endless target", "GET /" + std::string(600, 'x'), "414"},
           {"version of the future", "GET / HTTP/9.9\r\nHost: x\r\n\r\n", "505"},
       }) {
    RawClient client(server->port());
    client.Send(bad.bytes);
    const std::string got = client.ReadAll();
    EXPECT_THAT(got, StartsWith(std::string("HTTP/1.1 ") + bad.status)) << bad.name;
    EXPECT_THAT(got, HasSubstr("{\"oops\":")) << bad.name;
    EXPECT_THAT(got, HasSubstr("Connection: close\r\n")) << bad.name;
    EXPECT_THAT(got, testing::EndsWith("<closed>")) << bad.name;
  }
  EXPECT_TRUE(Eventually([&] { return server->num_connections() == 0; }));
}

TEST(Server, AHandlerThatThrowsIsAnswered) {
  const auto server = StartServer(Local(), [](Request request, std::shared_ptr<ResponseWriter> writer) {
    if (request.path == "/memory") throw std::bad_alloc();
    if (request.path == "/task") {
      ResponseWriter& to = *writer;
      return to.Post([writer = std::move(writer)] { throw std::runtime_error("later"); });
    }
    if (request.path != "/") throw std::runtime_error("broken");
    Echo(std::move(request), std::move(writer));
  });
  RawClient client(server->port());
  const auto status = [&](const std::string& path) {
    client.Send("GET " + path + " HTTP/1.1\r\n\r\n");
    const std::string head = client.ReadUntil("\r\n\r\n");
    client.ReadUntil(path == "/" ? "GET  " : "\n");
    return head.substr(9, 3);
  };
  EXPECT_EQ(status("/memory"), "503");
  EXPECT_EQ(status("/broken"), "500");
  EXPECT_EQ(status("/task"), "500");
  EXPECT_EQ(status("/"), "200");
}

TEST(Server, BodiesTogetherAreBounded) {
  ServerOptions options = Local();
  options.max_total_body_bytes = 1000;
  std::vector<std::shared_ptr<ResponseWriter>> held;
  std::mutex mutex;
  const auto server = StartServer(options, [&](Request, std::shared_ptr<ResponseWriter> writer) {
    const std::lock_guard lock(mutex);
    held.push_back(std::move(writer));
  });
  const std::string request = "POST / HTTP/1.1\r\nContent-Length: 600\r\n\r\n" + std::string(600, 'x');
  RawClient first(server->port()), second(server->port());
  first.Send(request);
  ASSERT_TRUE(Eventually([&] {
    const std::lock_guard lock(mutex);
    return held.size() == 1;
  }));
  second.Send(request);
  EXPECT_THAT(second.ReadAll(), StartsWith("HTTP/1.1 503"));
  held[0]->Send({200, "text/plain", {}, "done"});
  EXPECT_THAT(first.ReadUntil("done"), HasSubstr("200 OK"));
  RawClient third(server->port());
  third.Send(request);
  EXPECT_TRUE(Eventually([&] {
    const std::lock_guard lock(mutex);
    return held.size() == 2;
  }));
  held.clear();
  EXPECT_THAT(third.ReadUntil("given up"), StartsWith("HTTP/1.1 500"));  // a dropped writer still answers
}

TEST(Server, SlowAndSilentClientsAreTimedOut) {
  ServerOptions options = Local();
  options.header_timeout = 150ms;
  options.body_timeout = 150ms;
  options.keep_alive_timeout = 150ms;
  const auto server = StartServer(options, Echo);
  RawClient silent(server->port()), half(server->port()), no_body(server->port()), idle(server->port());
  half.Send("GET / HT");
  no_body.Send("POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nab");
  idle.Send("GET / HTTP/1.1\r\n\r\n");
  EXPECT_EQ(silent.ReadAll(), "<closed>");
  EXPECT_THAT(half.ReadAll(), StartsWith("HTTP/1.1 408"));
  EXPECT_THAT(no_body.ReadAll(), StartsWith("HTTP/1.1 408"));
  EXPECT_THAT(idle.ReadAll(), testing::AllOf(StartsWith("HTTP/1.1 200"), testing::EndsWith("GET  <closed>")));
}

TEST(Server, DisconnectIsHeardOnceAndNotAfterTheEnd) {
  std::atomic<int> gone{0}, started{0};
  std::shared_ptr<ResponseWriter> kept;
  const auto server = StartServer(Local(), [&](Request request, std::shared_ptr<ResponseWriter> writer) {
    writer->OnDisconnect([&] { ++gone; });
    if (request.path == "/quick") return writer->Send({200, "text/plain", {}, "quick"});
    writer->StartStream(200, "text/event-stream", {});
    kept = std::move(writer);
    ++started;
  });
  {
    RawClient client(server->port());
    client.Send("GET /quick HTTP/1.1\r\n\r\n");
    client.ReadUntil("quick");
  }
  EXPECT_TRUE(Eventually([&] { return server->num_connections() == 0; }));
  EXPECT_EQ(gone, 0);
  {
    RawClient client(server->port());
    client.Send("GET /slow HTTP/1.1\r\n\r\n");
    ASSERT_TRUE(Eventually([&] { return started == 1; }));
  }
  EXPECT_TRUE(Eventually([&] { return gone == 1; }));
  kept->Write("to nobody");
  kept->End();
  bool at_once = false;
  std::mutex mutex;
  kept->OnDisconnect([&] {
    const std::lock_guard lock(mutex);
    at_once = true;
  });
  EXPECT_TRUE(Eventually([&] {
    const std::lock_guard lock(mutex);
    return at_once;
  }));
  EXPECT_EQ(gone, 1);
}

// The client takes nothing. Either the time or the bytes cut it off; both are heard as a disconnect.
void ExpectCutOff(ServerOptions options) {
  std::atomic<bool> gone{false};
  std::atomic<int64_t> written{0};
  const auto server = StartServer(options, [&](Request, std::shared_ptr<ResponseWriter> writer) {
    writer->OnDisconnect([&] { gone = true; });
    writer->StartStream(200, "text/plain", {});
    std::thread([&, writer = std::move(writer)] {
      const std::string block(64 << 10, 'x');
      while (!gone) {
        if (written < (64 << 20)) {
          writer->Write(block);
          written += static_cast<int64_t>(block.size());
        }
        std::this_thread::sleep_for(1ms);
      }
    }).detach();
  });
  RawClient stuck(server->port());
  stuck.Send("GET / HTTP/1.1\r\n\r\n");
  EXPECT_TRUE(Eventually([&] { return gone.load(); }));
  EXPECT_TRUE(Eventually([&] { return server->num_connections() == 0; }));
  std::this_thread::sleep_for(20ms);  // the writing thread looks at `gone`
}

TEST(Server, StalledReaderIsCutOffByTime) {
  ServerOptions options = Local();
  options.write_timeout = 200ms;
  options.max_stream_queue_bytes = int64_t{1} << 30;
  ExpectCutOff(options);
}

TEST(Server, StalledReaderIsCutOffByBytes) {
  ServerOptions options = Local();
  options.max_stream_queue_bytes = 1 << 20;
  ExpectCutOff(options);
}

TEST(Server, StopWaitsForAnswersThenCuts) {
  std::shared_ptr<ResponseWriter> kept;
  std::atomic<bool> in{false}, gone{false};
  const auto server = StartServer(Local(), [&](Request, std::shared_ptr<ResponseWriter> writer) {
    writer->OnDisconnect([&] { gone = true; });
    kept = std::move(writer);
    in = true;
  });
  RawClient client(server->port()), idle(server->port());
  client.Send("GET / HTTP/1.1\r\n\r\n");
  ASSERT_TRUE(Eventually([&] { return in.load(); }));
  std::thread later([&] {
    std::this_thread::sleep_for(100ms);
    kept->Send({200, "text/plain", {}, "late"});
  });
  const TimePoint start = Now();
  std::thread reader([&] {
    EXPECT_THAT(client.ReadAll(), HasSubstr("late<closed>"));
    client.Close();
  });
  server->Stop(Now() + 10s);
  EXPECT_LT(SecondsSince(start), 5);
  EXPECT_FALSE(gone);
  later.join();
  reader.join();

  const auto second = StartServer(Local(), [&](Request, std::shared_ptr<ResponseWriter> writer) {
    writer->OnDisconnect([&] { gone = true; });
    kept = std::move(writer);
    in = true;
  });
  in = false;
  RawClient never(second->port());
  never.Send("GET / HTTP/1.1\r\n\r\n");
  ASSERT_TRUE(Eventually([&] { return in.load(); }));
  second->Stop(Now() + 100ms);
  EXPECT_TRUE(gone);
  kept->Send({200, "text/plain", {}, "nobody"});  // harmless
}

TEST(Server, PortInUseAndBadHostAreNamed) {
  const auto server = StartServer(Local(), Echo);
  ServerOptions same = Local();
  same.port = server->port();
  const auto taken = Server::Start(same, Echo);
  ASSERT_FALSE(taken.has_value());
  EXPECT_THAT(taken.error().message, HasSubstr(std::to_string(server->port())));
  ServerOptions nowhere = Local();
  nowhere.host = "no such host";
  EXPECT_EQ(Server::Start(nowhere, Echo).error().param, "--host");
}

TEST(Client, FetchesOverTcpAndUnix) {
  const auto tcp = StartServer(Local(), Echo);
  const auto client = MakeClient(*tcp);
  for (int i = 0; i < 3; ++i) {
    const auto response = client->Fetch({"POST", "/p?q=1", {}, "body"});
    ASSERT_TRUE(response.has_value()) << response.error().message;
    EXPECT_EQ(response->body, "POST q=1 body");
    EXPECT_EQ(*FindHeader(response->headers, "x-path"), "/p");
  }
  EXPECT_EQ(tcp->num_connections(), 1);  // kept alive

  ServerOptions options;
  options.unix_path = testing::TempDir() + "cadre_http_test.sock";
  std::filesystem::remove(options.unix_path);
  auto unix_server = StartServer(options, Echo);
  EXPECT_EQ(Server::Start(options, Echo).error().param, "--uds");  // in use
  ClientOptions by_path;
  by_path.unix_path = options.unix_path;
  const auto unix_client = std::move(*Client::Create(by_path));
  EXPECT_EQ(unix_client->Fetch({"GET", "/"})->body, "GET  ");
  unix_server.reset();
  EXPECT_FALSE(std::filesystem::exists(options.unix_path));
  EXPECT_EQ(unix_client->Fetch({"GET", "/"}).error().code, Code::kUnavailable);
  // A file left by a process that died is taken over.
  {
    const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    strncpy(address.sun_path, options.unix_path.c_str(), sizeof address.sun_path - 1);
    ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    close(fd);
  }
  unix_server = StartServer(options, Echo);
  EXPECT_EQ(unix_client->Fetch({"GET", "/"})->body, "GET  ");
}

TEST(Client, NewConnectionWhenTheServerClosedTheOldOne) {
  ServerOptions options = Local();
  options.keep_alive_timeout = 50ms;
  const auto server = StartServer(options, Echo);
  const auto client = MakeClient(*server);
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(client->Fetch({"GET", "/"})->body, "GET  ");
    std::this_thread::sleep_for(i < 2 ? 200ms : 50ms);
  }
}

TEST(Client, TimeOutCancelAndShutdown) {
  std::vector<std::shared_ptr<ResponseWriter>> held;
  std::atomic<int> gone{0}, in{0};
  std::mutex mutex;
  const auto server = StartServer(Local(), [&](Request, std::shared_ptr<ResponseWriter> writer) {
    writer->OnDisconnect([&] { ++gone; });
    const std::lock_guard lock(mutex);
    held.push_back(std::move(writer));
    ++in;
  });
  auto client = MakeClient(*server);
  ClientRequest quick{"GET", "/"};
  quick.idle_timeout = 100ms;
  EXPECT_EQ(client->Fetch(quick).error().code, Code::kDeadlineExceeded);
  EXPECT_TRUE(Eventually([&] { return gone == 1; }));

  struct Sink : ResponseSink {
    void OnHead(int, const Headers&) override {}
    void OnBody(std::string_view) override {}
    void OnDone(Status status) override {
      code = status.has_value() ? -1 : static_cast<int>(status.error().code);
    }
    std::atomic<int> code{-2};
  };
  const auto cancelled = std::make_shared<Sink>(), cut = std::make_shared<Sink>();
  const auto call = client->Send({"GET", "/"}, cancelled);
  EXPECT_TRUE(Eventually([&] { return in == 2; }));
  call->Cancel();
  EXPECT_TRUE(Eventually([&] { return cancelled->code == static_cast<int>(Code::kCancelled); }));
  EXPECT_TRUE(Eventually([&] { return gone == 2; }));
  client->Send({"GET", "/"}, cut);
  EXPECT_TRUE(Eventually([&] { return in == 3; }));
  client.reset();
  EXPECT_EQ(cut->code, static_cast<int>(Code::kCancelled));
}

TEST(Streams, HundredsAtOnceWhileHalfOfTheClientsVanish) {
  StreamLoad load{.num_streams = 300, .num_events = 10, .interval = 10ms};
  StreamLoadResult result = RunStreamLoad(load);
  EXPECT_EQ(result.num_complete, 300);
  EXPECT_EQ(result.num_disconnects, 0);
  load.half_vanish = true;
  result = RunStreamLoad(load);
  EXPECT_EQ(result.num_complete, 150);
  EXPECT_EQ(result.num_disconnects, 150);
  EXPECT_EQ(result.num_connections_after, 0);
}

// A certificate for localhost made by the openssl program; skipped where there is none.
bool MakeCertificate(const std::string& folder) {
  std::filesystem::create_directories(folder);
  const std::string command =
      "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext "
      "subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout " +
      folder + "/key.pem -out " + folder + "/cert.pem >/dev/null 2>&1";
  return std::system(command.c_str()) == 0;
}

TEST(Tls, ServesChecksClientsAndNamesBadFiles) {
  const std::string folder = testing::TempDir() + "cadre_tls_test";
  if (!MakeCertificate(folder)) GTEST_SKIP() << "no openssl program";
  ServerOptions options = Local();
  options.tls.key_file = folder + "/key.pem";
  options.tls.cert_file = folder + "/cert.pem";
  const auto server = StartServer(options, Echo);
  ClientOptions trusting;
  trusting.host = "localhost";
  trusting.port = server->port();
  trusting.tls = true;
  trusting.ca_file = folder + "/cert.pem";
  const auto client = std::move(*Client::Create(trusting));
  const std::string large(3 << 20, 'y');
  for (int i = 0; i < 2; ++i) {
    const auto response = client->Fetch({"POST", "/", {}, large});
    ASSERT_TRUE(response.has_value()) << response.error().message;
    EXPECT_EQ(response->body, "POST  " + large);
  }
  ClientOptions strict = trusting;
  strict.ca_file.clear();  // the system does not know this certificate
  EXPECT_EQ(std::move(*Client::Create(strict))->Fetch({"GET", "/"}).error().code, Code::kUnavailable);
  ClientOptions plain = trusting;
  plain.tls = false;
  EXPECT_FALSE(std::move(*Client::Create(plain))->Fetch({"GET", "/"}).has_value());

  ServerOptions needs_client = options;
  needs_client.tls.ca_file = folder + "/cert.pem";
  needs_client.tls.cert_reqs = 2;
  const auto picky = StartServer(needs_client, Echo);
  trusting.port = picky->port();
  EXPECT_FALSE(std::move(*Client::Create(trusting))->Fetch({"GET", "/"}).has_value());

  ServerOptions bad = options;
  bad.tls.key_file = folder + "/none.pem";
  EXPECT_EQ(Server::Start(bad, Echo).error().param, "--ssl-keyfile");
  bad = options;
  bad.tls.cert_file.clear();
  EXPECT_EQ(Server::Start(bad, Echo).error().param, "--ssl-certfile");
  bad = options;
  bad.tls.ciphers = "NO-SUCH-CIPHER";
  EXPECT_EQ(Server::Start(bad, Echo).error().param, "--ssl-ciphers");
  bad = options;
  bad.tls.cert_reqs = 1;
  EXPECT_EQ(Server::Start(bad, Echo).error().param, "--ssl-ca-certs");
}

}  // namespace
}  // namespace cadre::http
