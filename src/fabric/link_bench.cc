// A message there and one back between two threads, over the loopback interface: host links against bare TCP
// sockets that do the same (nonblocking, spinning). items/s counts one-way messages. Ratios are what to look
// at; run with --benchmark_enable_random_interleaving=true --benchmark_repetitions=9.
#include <benchmark/benchmark.h>
#include <sys/socket.h>

#include <atomic>
#include <functional>
#include <thread>

#include "fabric/host_link.h"
#include "sys/futex.h"
#include "sys/sockets.h"

namespace cadre::fabric {
namespace {

struct Sink final : LinkSink {
  explicit Sink(size_t bytes) : zone(bytes) {}
  Result<std::byte*> Place(const MessageHead& head) override {
    if (head.bytes > zone.size()) return Fail(Code::kDataLoss, "too large");
    return zone.data();
  }
  void Arrived(const MessageHead& head) override { round = head.round; }
  std::vector<std::byte> zone;
  uint32_t round = 0;
};

// One end: its port, link and landing place.
struct End {
  std::shared_ptr<HostPort> port;
  std::unique_ptr<HostLink> link;
  Sink sink;
  std::vector<std::byte> data;

  explicit End(size_t bytes) : sink(bytes), data(bytes, std::byte{1}) {}
  void Send(uint32_t round) {
    // Four pieces, as from four ranks.
    const size_t quarter = data.size() / 4;
    std::array<Piece, 4> pieces;
    for (size_t i = 0; i < 4; ++i) pieces[i] = {data.data() + i * quarter, quarter};
    link->Send({.channel = 0, .round = round, .bytes = quarter * 4}, pieces);
  }
  bool Await(uint32_t round, const std::atomic<bool>& stop) {
    while (sink.round != round || !link->sent()) {
      if (!port->Progress()) sys::SpinPause();
      if (stop.load(std::memory_order_relaxed)) return false;
    }
    return true;
  }
};

void Link(benchmark::State& state, const std::string& kind) {
  const auto bytes = static_cast<size_t>(state.range(0));
  ControlBlock block = {};
  const Control control(&block, false);
  End here(bytes), there(bytes);
  for (End* end : {&here, &there}) {
    auto port = MakePort(kind, {.addresses = {"127.0.0.1"}});
    if (!port) return state.SkipWithError(port.error().message.c_str());
    end->port = std::move(*port);
  }
  const auto connect = [&](End& end, const End& peer, bool active) {
    const LinkRequest request{.peer_address = peer.port->address(),
                              .peer_name = "peer",
                              .key = 1,
                              .active = active,
                              .sink = &end.sink};
    auto links = end.port->Connect({&request, 1}, control, Now() + std::chrono::seconds(5));
    if (links) end.link = std::move((*links)[0]);
  };
  std::atomic<bool> stop = false;
  std::thread echo([&] {
    connect(there, here, true);
    for (uint32_t round = 1; there.link && there.Await(round, stop); ++round) there.Send(round);
    there.link.reset();
  });
  connect(here, there, false);
  uint32_t round = 0;
  if (!here.link) state.SkipWithError("no link");
  while (here.link && state.KeepRunning()) {
    here.Send(++round);
    here.Await(round, stop);
  }
  stop = true;
  echo.join();
  state.SetItemsProcessed(state.iterations() * 2);
  state.SetBytesProcessed(state.iterations() * 2 * state.range(0));
}

bool SendSpinning(int fd, const std::vector<std::byte>& data, const std::atomic<bool>& stop) {
  for (size_t at = 0; at < data.size();) {
    const ssize_t n = send(fd, data.data() + at, data.size() - at, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n > 0) at += static_cast<size_t>(n);
    if (stop.load(std::memory_order_relaxed)) return false;
  }
  return true;
}
bool RecvSpinning(int fd, std::vector<std::byte>& data, const std::atomic<bool>& stop) {
  for (size_t at = 0; at < data.size();) {
    const ssize_t n = recv(fd, data.data() + at, data.size() - at, MSG_DONTWAIT);
    if (n > 0) at += static_cast<size_t>(n);
    if (stop.load(std::memory_order_relaxed)) return false;
  }
  return true;
}

void RawTcp(benchmark::State& state) {
  const auto bytes = static_cast<size_t>(state.range(0));
  auto listener = sys::ListenTcp("127.0.0.1", 0);
  auto a = sys::ConnectTcp("127.0.0.1", *sys::LocalPort(listener->get()), Now() + std::chrono::seconds(5));
  auto b = sys::Accept(listener->get(), Now() + std::chrono::seconds(5));
  std::vector<std::byte> mine(bytes), theirs(bytes);
  std::atomic<bool> stop = false;
  std::thread echo([&] {
    while (RecvSpinning(b->get(), theirs, stop) && SendSpinning(b->get(), theirs, stop)) {
    }
  });
  for (auto _ : state) {
    SendSpinning(a->get(), mine, stop);
    RecvSpinning(a->get(), mine, stop);
  }
  stop = true;
  echo.join();
  state.SetItemsProcessed(state.iterations() * 2);
  state.SetBytesProcessed(state.iterations() * 2 * state.range(0));
}

BENCHMARK(RawTcp)->Arg(64)->Arg(14 << 10)->Arg(1 << 20)->Arg(8 << 20)->UseRealTime();
BENCHMARK_CAPTURE(Link, tcp, std::string("tcp"))
    ->Arg(64)
    ->Arg(14 << 10)
    ->Arg(1 << 20)
    ->Arg(8 << 20)
    ->UseRealTime();
BENCHMARK_CAPTURE(Link, ucx, std::string("ucx"))
    ->Arg(64)
    ->Arg(14 << 10)
    ->Arg(1 << 20)
    ->Arg(8 << 20)
    ->UseRealTime();

}  // namespace
}  // namespace cadre::fabric
