// A fetch of 64 MiB of keys and values: within a host beside memcpy of the same bytes on one thread, between
// hosts (over the loopback interface) beside a bare socket that sends them from one thread into another's
// buffer with large calls. And a small one: what a fetch costs besides its bytes. Ratios are what to look at;
// run with --benchmark_enable_random_interleaving=true --benchmark_repetitions=5.
#include <benchmark/benchmark.h>
#include <sys/socket.h>

#include <condition_variable>
#include <cstring>
#include <mutex>
#include <thread>

#include "handoff/agent.h"
#include "sys/shared_memory.h"
#include "sys/sockets.h"

namespace cadre::handoff {
namespace {

constexpr int64_t kTokens = 1024, kBlocks = 128;

// 32 layers of 8 heads of 64 in bf16: 64 KiB a token.
Identity IdentityOf(int32_t block_size) {
  Identity identity;
  identity.model = std::string("bench");
  identity.layout = {.num_layers = 32,
                     .num_kv_heads = 8,
                     .k_dim = 64,
                     .v_dim = 64,
                     .block_size = block_size,
                     .type = DType::kBf16};
  identity.num_kv_heads = 8;
  return identity;
}

struct Side {
  Identity identity;
  sys::Segment segment;
  std::unique_ptr<Agent> agent;
  std::mutex mutex;
  std::condition_variable bell;
  bool rung = false;

  Side(int32_t block_size, bool near, const std::string& engine_id) : identity(IdentityOf(block_size)) {
    const int64_t num_blocks = kBlocks * 16 / block_size;
    segment = *sys::CreateSegment("bench", static_cast<size_t>(identity.layout.PoolBytes(num_blocks)), false);
    std::memset(segment.region.data(), 1, segment.region.bytes());
    agent = *StartAgent({.identity = identity,
                         .engine_id = engine_id,
                         .host = "127.0.0.1",
                         .bind_host = "127.0.0.1",
                         .kv_fd = segment.fd.get(),
                         .kv = segment.region.data(),
                         .num_blocks = num_blocks,
                         .share_memory = near,
                         .wake = [this] {
                           {
                             const std::lock_guard lock(mutex);
                             rung = true;
                           }
                           bell.notify_all();
                         }});
  }
  ~Side() { agent.reset(); }
  void Await() {
    std::unique_lock lock(mutex);
    bell.wait(lock, [&] { return rung; });
    rung = false;
  }
  std::vector<int32_t> Table(int64_t num_tokens) const {
    std::vector<int32_t> blocks(static_cast<size_t>(kv::BlocksFor(num_tokens, identity.layout.block_size)));
    for (size_t i = 0; i < blocks.size(); ++i) blocks[i] = static_cast<int32_t>(i * 5 % blocks.size());
    return blocks;
  }
};

void Fetch(benchmark::State& state, bool near, int32_t source_block, int32_t target_block) {
  const int64_t num_tokens = state.range(0);
  Side source(source_block, near, "source"), target(target_block, near, "target");
  int64_t bytes = 0, id = 0;
  SourceAddress address;
  address.engine_id = "source";
  address.host = source.agent->host();
  address.port = source.agent->port();
  for (auto _ : state) {
    state.PauseTiming();
    const std::string name = Format("r{}", ++id);
    address.request_id = name;
    if (!source.agent->Open(name, num_tokens, {})) return state.SkipWithError("open");
    source.agent->Blocks(name, source.Table(num_tokens));
    for (int32_t layer = 0; layer < 32; ++layer) source.agent->Written(name, layer, num_tokens);
    source.agent->Lease(name, Now() + std::chrono::seconds(60));
    state.ResumeTiming();
    target.agent->Fetch({.id = FetchId(id),
                         .source = address,
                         .num_tokens = num_tokens,
                         .blocks = target.Table(num_tokens),
                         .deadline = Now() + std::chrono::seconds(60)});
    std::vector<FetchResult> results;
    while (results.empty()) {
      target.Await();
      results = target.agent->TakeFetched();
    }
    if (!results[0].status) return state.SkipWithError(results[0].status.error().message.c_str());
    bytes += results[0].bytes;
    state.PauseTiming();
    while (source.agent->TakeEnded().empty()) source.Await();
    state.ResumeTiming();
  }
  state.SetBytesProcessed(bytes);
}

void Memcpy(benchmark::State& state) {
  const auto bytes = static_cast<size_t>(state.range(0) * 64 << 10);
  auto from = sys::CreateSegment("from", bytes, false), to = sys::CreateSegment("to", bytes, false);
  std::memset(from->region.data(), 1, bytes);
  std::memset(to->region.data(), 1, bytes);
  for (auto _ : state) {
    std::memcpy(to->region.data(), from->region.data(), bytes);
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * bytes));
}

void RawTcp(benchmark::State& state) {
  const auto bytes = static_cast<size_t>(state.range(0) * 64 << 10);
  auto listener = sys::ListenTcp("127.0.0.1", 0);
  auto a = sys::ConnectTcp("127.0.0.1", *sys::LocalPort(listener->get()), Now() + std::chrono::seconds(5));
  auto b = sys::Accept(listener->get(), Now() + std::chrono::seconds(5));
  std::vector<std::byte> mine(bytes, std::byte{1}), theirs(bytes, std::byte{2});
  std::thread sender([&] {
    std::byte go;
    while (sys::RecvAll(b->get(), {&go, 1}, TimePoint::max()).has_value()) {
      if (!sys::SendAll(b->get(), theirs, TimePoint::max())) return;
    }
  });
  for (auto _ : state) {
    const std::byte go{1};
    if (!sys::SendAll(a->get(), {&go, 1}, TimePoint::max())) return;
    if (!sys::RecvAll(a->get(), mine, TimePoint::max())) return;
  }
  a->Reset();
  sender.join();
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * bytes));
}

BENCHMARK(Memcpy)->Arg(kTokens)->UseRealTime();
BENCHMARK_CAPTURE(Fetch, near, true, 16, 16)->Arg(16)->Arg(kTokens)->UseRealTime();
BENCHMARK_CAPTURE(Fetch, near_blocks_64_to_16, true, 64, 16)->Arg(kTokens)->UseRealTime();
BENCHMARK(RawTcp)->Arg(kTokens)->UseRealTime();
BENCHMARK_CAPTURE(Fetch, tcp, false, 16, 16)->Arg(16)->Arg(kTokens)->UseRealTime();
BENCHMARK_CAPTURE(Fetch, tcp_blocks_64_to_16, false, 64, 16)->Arg(kTokens)->UseRealTime();

}  // namespace
}  // namespace cadre::handoff
