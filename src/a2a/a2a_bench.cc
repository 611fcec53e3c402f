// What an exchange costs apart from the experts: one layer's dispatch and combine, ranks as processes.
//   build/release/src/a2a/a2a_bench
#include <benchmark/benchmark.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "a2a/a2a.h"
#include "a2a/collective.h"
#include "fabric/broker.h"

namespace cadre::a2a {
namespace {

using namespace std::chrono_literals;

// Runs `body` in forked ranks; rank 0's is this process, which reports.
template <typename Body>
void WithRanks(int ranks, const Body& body) {
  auto broker = fabric::Broker::Create(ranks, "bench");
  if (!broker) std::abort();
  std::vector<pid_t> pids;
  for (int r = 1; r < ranks; ++r) {
    const pid_t pid = fork();
    if (pid == 0) {
      sys::Fd socket = (*broker)->TakeChildEnd(r);
      broker->reset();
      {
        auto member = fabric::JoinHost(std::move(socket), Now() + 20s);
        if (member) body(**member);
      }
      _exit(0);
    }
    pids.push_back(pid);
    (*broker)->CloseChildEnd(r);
  }
  sys::Fd socket = (*broker)->TakeChildEnd(0);
  (*broker)->Start();
  {
    auto member = fabric::JoinHost(std::move(socket), Now() + 20s);
    if (member) body(**member);
  }
  for (const pid_t pid : pids) waitpid(pid, nullptr, 0);
}

// One round of an exchange of `rows` rows of 2048 bf16, top 8 of 128 experts, without any expert's work.
void BM_Exchange(benchmark::State& state) {
  const int ranks = static_cast<int>(state.range(0));
  const int64_t rows = state.range(1);
  const bool spin = state.range(2) != 0;
  constexpr int kRounds = 300;
  WithRanks(ranks, [&](fabric::Rendezvous& rendezvous) {
    Options options;
    options.hidden = 2048;
    options.top_k = 8;
    options.max_rows = rows;
    options.layout = {.num_slots = 128, .num_ranks = ranks};
    options.rendezvous = &rendezvous;
    options.spin = spin;
    auto a2a = Create(options);
    if (!a2a) std::abort();
    std::vector<int32_t> slots;
    for (int64_t i = 0; i < rows * 8; ++i) slots.push_back(static_cast<int32_t>((i * 37 + i / 8 * 11) % 128));
    const std::vector<float> weights(slots.size(), 0.125f);
    std::vector<float> out(static_cast<size_t>(rows * 2048)), experts;
    const auto round = [&] {
      (*a2a)->BeginStep(0, Now() + 20s);
      (*a2a)->Stage(rows);
      const auto table = (*a2a)->Dispatch({rows, slots.data(), weights.data()});
      if (!table) std::abort();
      experts.resize(static_cast<size_t>(table->num_rows * 2048));
      if (!(*a2a)->Combine(experts.data(), out.data(), false)) std::abort();
    };
    for (int i = 0; i < 20; ++i) round();
    const TimePoint start = Now();
    for (int i = 0; i < kRounds; ++i) round();
    if (rendezvous.rank() == 0) state.counters["us_per_round"] = SecondsSince(start) / kRounds * 1e6;
  });
  for (auto _ : state) {
  }
}
BENCHMARK(BM_Exchange)
    ->ArgNames({"ranks", "rows", "spin"})
    ->Args({2, 1, 1})
    ->Args({2, 16, 1})
    ->Args({2, 256, 1})
    ->Args({4, 1, 0})
    ->Args({4, 16, 0})
    ->Iterations(1);

void BM_AllReduce(benchmark::State& state) {
  const int ranks = static_cast<int>(state.range(0));
  const int64_t count = state.range(1);
  constexpr int kRounds = 500;
  WithRanks(ranks, [&](fabric::Rendezvous& rendezvous) {
    auto group = Collective::Create({.rendezvous = &rendezvous, .spin = ranks <= 2});
    if (!group) std::abort();
    (*group)->BeginStep(0, Now() + 20s);
    std::vector<float> out(static_cast<size_t>(count));
    const auto round = [&] {
      (*group)->Stage(count)[0] = 1;
      if (!(*group)->ReduceStaged(count, out.data(), true)) std::abort();
    };
    for (int i = 0; i < 20; ++i) round();
    const TimePoint start = Now();
    for (int i = 0; i < kRounds; ++i) round();
    if (rendezvous.rank() == 0) state.counters["us_per_round"] = SecondsSince(start) / kRounds * 1e6;
  });
  for (auto _ : state) {
  }
}
BENCHMARK(BM_AllReduce)
    ->ArgNames({"ranks", "floats"})
    ->Args({2, 2048})
    ->Args({2, 65536})
    ->Args({4, 2048})
    ->Args({4, 65536})
    ->Iterations(1);

}  // namespace
}  // namespace cadre::a2a
