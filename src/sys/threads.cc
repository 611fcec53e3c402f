#include "sys/threads.h"

#include <pthread.h>
#include <sched.h>

#include <thread>

#include "base/check.h"
#include "base/clock.h"
#include "sys/futex.h"

namespace cadre::sys {
namespace {

// How often a waiter looks before it sleeps: 2,000 pauses are 20 to 90 us, longer than the serial parts of a step and
// far shorter than the time between two requests of an idle server.
constexpr int kSpins = 2000;

void PinTo(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<size_t>(cpu), &set);
  pthread_setaffinity_np(pthread_self(), sizeof(set), &set);  // best effort: a cpuset may forbid it
}

// Waits until `word` is no longer `old`. `sleepers` counts who may need a wake; its increment is ordered before the
// futex's own check of the word (seq_cst), the partner of WakeAfterChange.
void WaitForChange(std::atomic<uint32_t>& word, uint32_t old, std::atomic<int>& sleepers, bool spin) {
  for (int i = spin ? kSpins : 1; i > 0; --i) {
    if (word.load(std::memory_order_acquire) != old) return;
    SpinPause();
  }
  sleepers.fetch_add(1);
  while (word.load() == old) FutexWait(word, old);
  sleepers.fetch_sub(1);
}

void WakeAfterChange(std::atomic<uint32_t>& word, std::atomic<int>& sleepers) {
  if (sleepers.load() > 0) FutexWakeAll(word, false);
}

}  // namespace

struct ThreadPool::State {
  ThreadPoolOptions options;
  const FunctionRef<void(int)>* job = nullptr;  // written before `round` changes, read after
  alignas(64) std::atomic<uint32_t> round{0};   // a change starts a job
  std::atomic<int> round_sleepers{0};
  alignas(64) std::atomic<uint32_t> running{0};  // workers (not the caller) still in the job
  std::atomic<int> running_sleepers{0};
  alignas(64) std::atomic<int64_t> next_task{0};
  bool stop = false;  // written before `round` changes
  bool caller_pinned = false;
  std::vector<std::thread> threads;

  void Work(int worker) {
    if (!options.cpus.empty()) PinTo(options.cpus[static_cast<size_t>(worker) % options.cpus.size()]);
    uint32_t seen = 0;
    while (true) {
      WaitForChange(round, seen, round_sleepers, options.spin);
      seen = round.load(std::memory_order_acquire);
      if (stop) return;
      (*job)(worker);
      if (running.fetch_sub(1) == 1) WakeAfterChange(running, running_sleepers);
    }
  }
};

ThreadPool::ThreadPool(ThreadPoolOptions options) : state_(std::make_unique<State>()) {
  CADRE_CHECK(options.num_threads >= 1);
  state_->options = std::move(options);
  for (int i = 1; i < state_->options.num_threads; ++i) {
    state_->threads.emplace_back([state = state_.get(), i] { state->Work(i); });
  }
}

ThreadPool::~ThreadPool() {
  state_->stop = true;
  state_->round.fetch_add(1);
  WakeAfterChange(state_->round, state_->round_sleepers);
  for (auto& thread : state_->threads) thread.join();
}

int ThreadPool::num_threads() const { return state_->options.num_threads; }

void ThreadPool::Run(FunctionRef<void(int)> fn) {
  State& s = *state_;
  if (!s.caller_pinned && !s.options.cpus.empty()) {
    PinTo(s.options.cpus[0]);
    s.caller_pinned = true;
  }
  if (s.threads.empty()) return fn(0);
  s.job = &fn;
  s.running.store(static_cast<uint32_t>(s.threads.size()));
  s.round.fetch_add(1);
  WakeAfterChange(s.round, s.round_sleepers);
  // The others work on what the caller's stack holds: an exception (memory that ran out) must not unwind it.
  [&]() noexcept { fn(0); }();
  for (uint32_t left = s.running.load(); left != 0; left = s.running.load()) {
    WaitForChange(s.running, left, s.running_sleepers, s.options.spin);
  }
}

void ThreadPool::ForEach(int64_t num_tasks, FunctionRef<void(int64_t, int)> fn) {
  if (num_tasks <= 1 || state_->threads.empty()) {
    for (int64_t task = 0; task < num_tasks; ++task) fn(task, 0);
    return;
  }
  state_->next_task.store(0, std::memory_order_relaxed);
  Run([&](int worker) {
    while (true) {
      const int64_t task = state_->next_task.fetch_add(1, std::memory_order_relaxed);
      if (task >= num_tasks) return;
      fn(task, worker);
    }
  });
}

}  // namespace cadre::sys
