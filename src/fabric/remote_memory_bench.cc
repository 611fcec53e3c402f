// A piece of memory fetched from another process, as a rank fetches weights: over UCX asked for and direct
// (which without RDMA is UCX's emulation), over a plain socket to another thread, which sends what it is
// asked for, and by memcpy. Ratios are what to look at; run with --benchmark_enable_random_interleaving=true
// --benchmark_repetitions=9.
#include <benchmark/benchmark.h>

#include <array>
#include <cstring>
#include <thread>

#include "fabric/memory_owner_testing.h"
#include "sys/sockets.h"

namespace cadre::fabric {
namespace {

constexpr size_t kFileBytes = 64 << 20;  // more than caches hold

TimePoint Soon() {
  return Now() + std::chrono::seconds(10);
}

// Fetches pieces in turn, so that none is where it was read a moment ago.
template <typename Fetch>
void Run(benchmark::State& state, Fetch fetch) {
  const auto bytes = static_cast<size_t>(state.range(0));
  std::vector<std::byte> to(bytes);
  size_t offset = 0;
  for (auto _ : state) {
    if (!fetch(offset, std::span(to))) state.SkipWithError("not fetched");
    benchmark::DoNotOptimize(to.data());
    offset = offset + 2 * bytes <= kFileBytes ? offset + bytes : 0;
  }
  state.SetBytesProcessed(state.iterations() * state.range(0));
}

void Ucx(benchmark::State& state, bool direct) {
  const std::vector<std::byte> file(kFileBytes, std::byte{1});
  std::string why;
  const auto owner = test::OwnerProcess::Start(CADRE_MEMORY_OWNER, direct, why);
  const auto reader = MemoryReader::Create({.addresses = {"127.0.0.1"}, .direct = direct});
  if (owner == nullptr || !reader) return state.SkipWithError("no UCX");
  (*reader)->Attach("127.0.0.1", owner->port(), {owner->Map(file)});
  Run(state, [&](size_t offset, std::span<std::byte> to) {
    return (*reader)->Read(0, offset, to, {.deadline = Soon()}).has_value();
  });
}

void Socket(benchmark::State& state) {
  const std::vector<std::byte> file(kFileBytes, std::byte{1});
  const auto listener = sys::ListenTcp("127.0.0.1", 0);
  std::thread other([&] {
    const auto fd = sys::Accept(listener->get(), Soon());
    std::array<uint64_t, 3> ask = {};
    while (fd && sys::RecvAll(fd->get(), std::as_writable_bytes(std::span(ask)), Soon()) &&
           sys::SendAll(fd->get(), std::span(file).subspan(ask[1], ask[2]), Soon())) {
    }
  });
  {
    const auto fd = sys::ConnectTcp("127.0.0.1", *sys::LocalPort(listener->get()), Soon());
    if (fd) sys::SetNoDelay(fd->get());
    Run(state, [&](size_t offset, std::span<std::byte> to) {
      const std::array<uint64_t, 3> ask = {2, offset, to.size()};
      return fd && sys::SendAll(fd->get(), std::as_bytes(std::span(ask)), Soon()) &&
             sys::RecvAll(fd->get(), to, Soon());
    });
  }
  other.join();
}

void Memcpy(benchmark::State& state) {
  const std::vector<std::byte> file(kFileBytes, std::byte{1});
  Run(state, [&](size_t offset, std::span<std::byte> to) {
    std::memcpy(to.data(), file.data() + offset, to.size());
    return true;
  });
}

BENCHMARK_CAPTURE(Ucx, asked, false)->Name("fetch/ucx_asked")->Arg(16 << 10)->Arg(512 << 10)->UseRealTime();
BENCHMARK_CAPTURE(Ucx, direct, true)->Name("fetch/ucx_direct")->Arg(16 << 10)->Arg(512 << 10)->UseRealTime();
BENCHMARK(Socket)->Name("fetch/socket")->Arg(16 << 10)->Arg(512 << 10)->UseRealTime();
BENCHMARK(Memcpy)->Name("fetch/memcpy")->Arg(16 << 10)->Arg(512 << 10)->UseRealTime();

}  // namespace
}  // namespace cadre::fabric
