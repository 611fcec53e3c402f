#pragma once
// For tests: workers that are stubs, and a client's view of an answer.
#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include "base/json.h"
#include "http/client.h"
#include "http/server.h"
#include "http/sse.h"
#include "route/router.h"

namespace cadre::route {

using Writer = std::shared_ptr<http::ResponseWriter>;

inline bool Eventually(const std::function<bool()>& what, double seconds = 20) {
  for (const TimePoint limit =
           Now() + std::chrono::duration_cast<Duration>(std::chrono::duration<double>(seconds));
       Now() < limit; std::this_thread::sleep_for(std::chrono::milliseconds(2))) {
    if (what()) return true;
  }
  return what();
}

inline http::Response JsonText(std::string body, int status = 200) {
  http::Response response;
  response.status = status;
  response.body = std::move(body);
  return response;
}

/// A worker: answers its probe, notes what it is asked, and answers the rest as `behave` says (on its io
/// thread).
class Stub {
 public:
  using Behave = std::function<void(const http::Request&, const Writer&)>;
  explicit Stub(Behave behave = {}, int at_port = 0) : behave_(std::move(behave)) {
    http::ServerOptions options;
    options.host = "127.0.0.1";
    options.port = at_port;
    server_ = std::move(*http::Server::Start(options, [this](http::Request request, const Writer& writer) {
      Handle(std::move(request), writer);
    }));
    port = server_->port();
  }
  ~Stub() { Kill(); }

  std::string Url() const { return Format("http://127.0.0.1:{}", port); }
  /// As kill -9 does: all connections break, the port refuses.
  void Kill() {
    if (server_) server_->Stop(Now());
    server_.reset();
  }
  std::vector<http::Request> Requests() const {
    const std::lock_guard lock(mutex_);
    return requests_;
  }
  int num_requests() const { return static_cast<int>(Requests().size()); }

  /// What it says of how its KV is reached; empty: no such route.
  void SetKvTransfer(std::string answer) {
    const std::lock_guard lock(mutex_);
    kv_transfer_ = std::move(answer);
  }

  int port = 0;
  /// What it says of what it holds; empty: no such route. Set before a router knows it.
  std::function<http::Response(const http::Request&)> prefix_digest;
  std::atomic<bool> healthy{true};
  std::atomic<int> num_probes{0}, num_disconnects{0};

 private:
  void Handle(http::Request request, const Writer& writer) {
    if (request.path == "/health") {
      ++num_probes;
      return writer->Send(JsonText("{}", healthy ? 200 : 503));
    }
    if (request.path == "/kv_transfer") {
      const std::lock_guard lock(mutex_);
      return writer->Send(kv_transfer_.empty() ? JsonText("{}", 404) : JsonText(kv_transfer_));
    }
    if (request.path == "/prefix_digest")
      return writer->Send(prefix_digest ? prefix_digest(request) : JsonText("{}", 404));
    writer->OnDisconnect([this] { ++num_disconnects; });
    {
      const std::lock_guard lock(mutex_);
      requests_.push_back(request);
    }
    if (behave_) return behave_(request, writer);
    writer->Send(JsonText(Format(R"({{"port":{}}})", port)));
  }

  const Behave behave_;
  mutable std::mutex mutex_;
  std::vector<http::Request> requests_;
  std::string kv_transfer_;
  std::unique_ptr<http::Server> server_;
};

/// A worker that does not answer by itself: keeps its writers for the test.
class Keeper {
 public:
  Stub::Behave Behave() {
    return [this](const http::Request&, const Writer& writer) {
      const std::lock_guard lock(mutex_);
      kept_.push_back(writer);
    };
  }
  size_t size() const {
    const std::lock_guard lock(mutex_);
    return kept_.size();
  }
  Writer operator[](size_t i) const {
    const std::lock_guard lock(mutex_);
    return kept_.at(i);
  }

 private:
  mutable std::mutex mutex_;
  std::vector<Writer> kept_;
};

/// Writes `count` events, one each `interval`, from a thread of its own.
inline Stub::Behave Streams(int count, std::chrono::milliseconds interval = std::chrono::milliseconds(1)) {
  return [=](const http::Request&, const Writer& writer) {
    std::thread([=] {
      writer->StartStream(200, "text/event-stream", {});
      for (int i = 0; i < count; ++i) {
        writer->Write(Format("data: {}\n\n", i));
        std::this_thread::sleep_for(interval);
      }
      writer->Write("data: [DONE]\n\n");
      writer->End();
    }).detach();
  };
}

inline Stub::Behave Answers(int status, const char* body) {
  return [=](const http::Request&, const Writer& writer) { writer->Send(JsonText(body, status)); };
}

/// Begins an event stream, says `first`, and vanishes without an end.
inline Stub::Behave BreaksAfter(const char* first) {
  return [=](const http::Request&, const Writer& writer) {
    writer->StartStream(200, "text/event-stream", {});
    if (*first != '\0') writer->Write(first);
  };
}

/// Collects an answer as it comes.
class Heard final : public http::ResponseSink {
  template <typename Read>
  auto Locked(Read read) const {
    const std::lock_guard lock(mutex_);
    return read();
  }

 public:
  void OnHead(int got, const http::Headers& got_headers) override {
    const std::lock_guard lock(mutex_);
    status_ = got;
    headers_ = got_headers;
  }
  void OnBody(std::string_view bytes) override {
    const std::lock_guard lock(mutex_);
    body_ += bytes;
    reader_.Push(bytes, [this](std::string_view data) { events_.emplace_back(data); });
  }
  void OnDone(Status status) override {
    const std::lock_guard lock(mutex_);
    end_ = std::move(status);
  }
  int status() const {
    return Locked([this] { return status_; });
  }
  std::string body() const {
    return Locked([this] { return body_; });
  }
  std::vector<std::string> events() const {
    return Locked([this] { return events_; });
  }
  bool done() const {
    return Locked([this] { return end_.has_value(); });
  }
  bool complete() const {
    return Locked([this] { return end_.has_value() && end_->has_value(); });
  }
  std::string header(std::string_view name) const {
    return Locked([&] {
      const std::string* value = http::FindHeader(headers_, name);
      return value != nullptr ? *value : std::string();
    });
  }

 private:
  mutable std::mutex mutex_;
  int status_ = 0;
  http::Headers headers_;
  std::string body_;
  std::vector<std::string> events_;
  http::SseReader reader_;
  std::optional<Status> end_;
};

/// A router with a client of it.
class House {
 public:
  static Options Quick() {
    Options options;
    options.http.host = "127.0.0.1";
    options.http.port = 0;
    options.policy.name = options.prefill_policy.name = options.decode_policy.name = "round_robin";
    options.health.interval = options.health.startup_interval = std::chrono::milliseconds(20);
    options.health.timeout = std::chrono::seconds(5);
    options.health.failure_threshold = 2;
    options.health.success_threshold = 1;
    options.retry.initial_backoff = std::chrono::milliseconds(5);
    options.file_interval = options.dns_interval = std::chrono::milliseconds(50);
    return options;
  }
  static void Add(Options& options, const std::vector<const Stub*>& stubs, Role role) {
    for (const Stub* stub : stubs) options.workers.push_back(*ParseWorkerUrl(stub->Url(), role));
    options.pairs = role != Role::kPlain;
  }

  /// `wait_for`: as many workers must be healthy before the test begins.
  House(Options options, int wait_for, Resolver resolver = ResolveHost) {
    router = std::move(*Router::Start(std::move(options), std::move(resolver)));
    http::ClientOptions to;
    to.port = router->port();
    client = std::move(*http::Client::Create(to));
    if (!Eventually([&] { return router->num_healthy() == wait_for; }))
      throw std::runtime_error("workers are down");
  }
  http::Response Fetch(const std::string& method, const std::string& target, const std::string& body = "",
                       http::Headers headers = {}) {
    auto got = client->Fetch({method, target, std::move(headers), body, std::chrono::seconds(30)});
    if (!got) return JsonText(got.error().message, 0);
    return *std::move(got);
  }
  http::Response Complete(const std::string& body = R"({"prompt":"hi"})", http::Headers headers = {}) {
    return Fetch("POST", "/v1/completions", body, std::move(headers));
  }
  std::shared_ptr<Heard> Open(const std::string& body, std::shared_ptr<http::ClientCall>* call = nullptr) {
    auto heard = std::make_shared<Heard>();
    auto made = client->Send({"POST", "/v1/completions", {}, body, std::chrono::seconds(30)}, heard);
    if (call != nullptr) *call = std::move(made);
    return heard;
  }
  /// The value of a metric's line that begins with `line`; -1 if there is none.
  double Metric(const std::string& line) const {
    const std::string text = router->Metrics();
    const size_t at = text.find("\n" + line + " ");
    return at == text.npos ? -1 : std::stod(text.substr(at + line.size() + 2));
  }

  std::unique_ptr<Router> router;
  std::unique_ptr<http::Client> client;
};

}  // namespace cadre::route
