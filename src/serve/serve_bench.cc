// What a token costs between the engine and a client's socket, and a request around it: a FakeEngine that
// takes no time, the real server, and our client on the other side of a loopback socket, in one process.
#include <benchmark/benchmark.h>

#include <atomic>
#include <condition_variable>

#include "http/client.h"
#include "http/sse.h"
#include "serve/server.h"
#include "session/fake_engine.h"
#include "session/fake_text.h"

namespace cadre::serve {
namespace {

struct Load {
  std::mutex mutex;
  std::condition_variable done_signal;
  int started = 0, done = 0, total = 0;
  std::atomic<int64_t> events{0};
  http::Client* client = nullptr;
  std::string body;
};

class Stream final : public http::ResponseSink, public std::enable_shared_from_this<Stream> {
 public:
  explicit Stream(Load& load) : load_(load) {}
  void OnHead(int, const http::Headers&) override {}
  void OnBody(std::string_view bytes) override {
    reader_.Push(bytes, [this](std::string_view) { ++load_.events; });
  }
  void OnDone(Status) override {
    const std::lock_guard lock(load_.mutex);
    if (++load_.done == load_.total) load_.done_signal.notify_all();
    if (load_.started == load_.total) return;
    ++load_.started;
    load_.client->Send({"POST", "/v1/completions", {}, load_.body}, std::make_shared<Stream>(load_));
  }

 private:
  Load& load_;
  http::SseReader reader_;
};

// A server of one fake engine, and a client of it.
struct Served {
  explicit Served(const session::FakeEngineOptions& options) : engine(options) {
    ServeOptions serve;
    serve.http.host = "127.0.0.1";
    serve.http.port = 0;
    serve.served_model_names = {"fake"};
    server = std::move(*ApiServer::Open(serve, registry));
    server->Serve(session);
    http::ClientOptions to;
    to.port = server->port();
    client = std::move(*http::Client::Create(to));
  }

  session::FakeEngine engine;
  session::Session session{{}, engine, std::make_shared<session::FakeText>()};
  MetricsRegistry registry;
  std::unique_ptr<ApiServer> server;
  std::unique_ptr<http::Client> client;
};

// range(0): requests at a time; range(1): microseconds of an engine step.
void BM_StreamedCompletions(benchmark::State& state) {
  constexpr int kRequests = 128, kPrompt = 64, kTokens = 32;
  session::FakeEngineOptions options;
  options.model.vocab_size = 257;
  options.step_time = std::chrono::microseconds(state.range(1));
  const Served served(options);
  Load load;
  load.client = served.client.get();
  load.body = Format(R"({{"model":"fake","prompt":"{}","max_tokens":{},"stream":true,"ignore_eos":true}})",
                     std::string(kPrompt, 'a'), kTokens);
  for (auto _ : state) {
    std::unique_lock lock(load.mutex);
    load.done = 0;
    load.total = kRequests;
    load.started = static_cast<int>(state.range(0));
    for (int i = 0; i < load.started; ++i) {
      load.client->Send({"POST", "/v1/completions", {}, load.body}, std::make_shared<Stream>(load));
    }
    load.done_signal.wait(lock, [&] { return load.done == kRequests; });
  }
  const auto tokens = static_cast<double>(state.iterations() * kRequests * kTokens);
  state.counters["tokens/s"] = benchmark::Counter(tokens, benchmark::Counter::kIsRate);
  state.counters["events/token"] = static_cast<double>(load.events) / tokens;
}
BENCHMARK(BM_StreamedCompletions)
    ->Args({32, 0})
    ->Args({32, 1000})
    ->Args({32, 2000})
    ->Args({1, 0})
    ->MeasureProcessCPUTime()
    ->UseRealTime();

void BM_ShortRequest(benchmark::State& state) {
  const Served served({});
  for (auto _ : state) {
    auto response =
        served.client->Fetch({"POST", "/v1/completions", {}, R"({"prompt":"hello","max_tokens":1})"});
    benchmark::DoNotOptimize(response);
  }
}
BENCHMARK(BM_ShortRequest)->MeasureProcessCPUTime()->UseRealTime();

}  // namespace
}  // namespace cadre::serve
