// What the router costs: time added to a request, and streams at once on one core.
//
// The router is a process of its own, bound to one CPU where the machine has more; stubs and clients are
// threads of this one. `BM_Request/0` asks the stub, `/1` through the router: their medians' difference is
// what is added. `BM_Streams` holds 2,000 streams of 10 events a second for a few seconds and says how many
// events came, how late, and what share of a core the router took.
#include <benchmark/benchmark.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

#include "base/log.h"
#include "route/stub_testing.h"

namespace cadre::route {
namespace {

// Answers at once, or keeps streams for whoever writes to them all.
struct Load {
  std::mutex mutex;
  std::vector<Writer> streams;
  Stub stub{[this](const http::Request& request, const Writer& writer) {
    if (request.path != "/v1/completions") return writer->Send(JsonText(R"({"choices":[{"text":"four"}]})"));
    writer->StartStream(200, "text/event-stream", {});
    const std::lock_guard lock(mutex);
    streams.push_back(writer);
  }};
};

// Started before there are threads.
class RouterProcess {
 public:
  explicit RouterProcess(const char* policy) {
    int to_child[2], to_parent[2];
    if (pipe(to_child) != 0 || pipe(to_parent) != 0) abort();
    pid_ = fork();
    if (pid_ == 0) {
      Serve(policy, to_child[0], to_parent[1]);
      _exit(0);
    }
    in_ = to_child[1];
    out_ = to_parent[0];
  }
  ~RouterProcess() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  /// Once: the router for this worker; returns its port.
  int Open(int worker_port) {
    if (port_ != 0) return port_;
    if (write(in_, &worker_port, sizeof worker_port) != sizeof worker_port) abort();
    if (read(out_, &port_, sizeof port_) != sizeof port_) abort();
    return port_;
  }
  double CpuSeconds() const {
    clockid_t clock;
    timespec used = {};
    if (clock_getcpuclockid(pid_, &clock) != 0 || clock_gettime(clock, &used) != 0) return 0;
    return static_cast<double>(used.tv_sec) + static_cast<double>(used.tv_nsec) / 1e9;
  }

 private:
  static void Serve(const char* policy, int in, int out) {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN)) - 1, &one);
    sched_setaffinity(0, sizeof one, &one);
    http::RaiseOpenFileLimit();
    int worker_port = 0;
    if (read(in, &worker_port, sizeof worker_port) != sizeof worker_port) return;
    Options options;
    options.http.host = "127.0.0.1";
    options.http.port = 0;
    options.policy.name = policy;
    options.workers = {*ParseWorkerUrl(Format("127.0.0.1:{}", worker_port), Role::kPlain)};
    const auto router = std::move(*Router::Start(options));
    if (!Eventually([&] { return router->num_healthy() == 1; })) return;
    const int port = router->port();
    if (write(out, &port, sizeof port) != sizeof port) return;
    pause();
  }
  pid_t pid_ = 0;
  int in_ = -1, out_ = -1, port_ = 0;
};

RouterProcess* g_round_robin = nullptr;
RouterProcess* g_cache_aware = nullptr;

Load& TheLoad() {
  static auto* load = new Load;
  return *load;
}

std::unique_ptr<http::Client> ClientOf(int port) {
  http::ClientOptions to;
  to.port = port;
  return std::move(*http::Client::Create(to));
}

double Quantile(std::vector<double>& values, double q) {
  if (values.empty()) return 0;
  const auto at = values.begin() + static_cast<ptrdiff_t>(q * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), at, values.end());
  return *at;
}

// 0: the worker itself; 1: round_robin; 2: cache_aware with a prompt of 8 KiB.
void BM_Request(benchmark::State& state) {
  Load& load = TheLoad();
  RouterProcess* router = state.range(0) == 1 ? g_round_robin : g_cache_aware;
  const auto client = ClientOf(state.range(0) == 0 ? load.stub.port : router->Open(load.stub.port));
  const std::string body = R"({"prompt":")" + std::string(state.range(1), 'p') + R"("})";
  std::vector<double> us;
  for (auto _ : state) {
    const TimePoint start = Now();
    const auto got = client->Fetch({"POST", "/v1/chat/completions", {}, body});
    us.push_back(SecondsSince(start) * 1e6);
    if (!got || got->status != 200) return state.SkipWithError("no answer");
  }
  state.counters["p50_us"] = Quantile(us, 0.5);
  state.counters["p99_us"] = Quantile(us, 0.99);
}
BENCHMARK(BM_Request)->ArgsProduct({{0, 1, 2}, {100, 8192}})->Iterations(5000)->UseRealTime();

// Notes how late each event is: its text is when it was due.
class Lateness final : public http::ResponseSink {
 public:
  void OnHead(int, const http::Headers&) override {}
  void OnBody(std::string_view bytes) override {
    reader_.Push(bytes, [this](std::string_view data) {
      const double now = Seconds(Now().time_since_epoch());
      late_ms.push_back((now - std::strtod(std::string(data).c_str(), nullptr)) * 1e3);
    });
  }
  void OnDone(Status) override { done = true; }
  std::vector<double> late_ms;
  std::atomic<bool> done{false};

 private:
  http::SseReader reader_;
};

void BM_Streams(benchmark::State& state) {
  constexpr int kSeconds = 5, kPerSecond = 10,
                kParts = 20;  // streams write in so many shifts, not all at once
  Load& load = TheLoad();
  const auto num_streams = static_cast<size_t>(state.range(0));
  const bool direct = state.range(1) == 0;
  const auto client = ClientOf(direct ? load.stub.port : g_round_robin->Open(load.stub.port));
  for (auto _ : state) {
    std::vector<std::shared_ptr<Lateness>> sinks;
    for (size_t i = 0; i < num_streams; ++i) {
      sinks.push_back(std::make_shared<Lateness>());
      client->Send({"POST", "/v1/completions", {}, "{}"}, sinks.back());
    }
    const auto opened = [&] {
      const std::lock_guard lock(load.mutex);
      return load.streams.size();
    };
    if (!Eventually([&] { return opened() == num_streams; }, 60))
      return state.SkipWithError("not all opened");
    const double cpu_before = g_round_robin->CpuSeconds();
    const TimePoint start = Now();
    for (int step = 0; step < kSeconds * kPerSecond * kParts; ++step) {
      const TimePoint due = start + std::chrono::milliseconds(1000 / kPerSecond / kParts) * step;
      std::this_thread::sleep_until(due);
      const std::string event = Format("data: {:.6f}\n\n", Seconds(due.time_since_epoch()));
      for (size_t i = static_cast<size_t>(step % kParts); i < num_streams; i += kParts)
        load.streams[i]->Write(event);
    }
    state.counters["router_core_share"] = (g_round_robin->CpuSeconds() - cpu_before) / SecondsSince(start);
    for (const auto& stream : load.streams) stream->End();
    load.streams.clear();
    std::vector<double> late;
    for (const auto& sink : sinks) {
      Eventually([&] { return sink->done.load(); }, 30);
      late.insert(late.end(), sink->late_ms.begin(), sink->late_ms.end());
    }
    state.counters["events"] = static_cast<double>(late.size());
    state.counters["events_wanted"] = static_cast<double>(num_streams) * kSeconds * kPerSecond;
    state.counters["late_p50_ms"] = Quantile(late, 0.5);
    state.counters["late_p99_ms"] = Quantile(late, 0.99);
  }
}
BENCHMARK(BM_Streams)->ArgsProduct({{2000}, {0, 1}})->Iterations(1)->UseRealTime()->Unit(benchmark::kSecond);

}  // namespace

void StartRouters() {
  g_round_robin = new RouterProcess("round_robin");
  g_cache_aware = new RouterProcess("cache_aware");
}
void EndRouters() {
  delete g_round_robin;
  delete g_cache_aware;
}

}  // namespace cadre::route

int main(int argc, char** argv) {
  cadre::ConfigureLog(cadre::LogLevel::kWarning, "", false);
  cadre::http::RaiseOpenFileLimit();
  cadre::route::StartRouters();
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
  cadre::route::EndRouters();
  return 0;
}
