#pragma once
// The worker threads of one rank. The engine thread is worker 0; Run() is a fork and a join, nothing else.
//
// Between two Runs of a step lie only microseconds, so a waiting worker spins for a short while before it sleeps;
// with more threads than CPUs it sleeps at once. Nobody owns work ahead of time: whoever is free takes the next task.
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <type_traits>
#include <vector>

namespace cadre::sys {

/// A borrowed callable: two pointers, no allocation. The callable must outlive the call.
template <typename Signature>
class FunctionRef;
template <typename R, typename... Args>
class FunctionRef<R(Args...)> {
 public:
  template <typename F>
    requires(!std::is_same_v<std::remove_cvref_t<F>, FunctionRef>)
  FunctionRef(F&& f)  // NOLINT: implicit on purpose
      : object_(const_cast<void*>(static_cast<const void*>(&f))), call_([](void* o, Args... args) -> R {
          return (*static_cast<std::remove_reference_t<F>*>(o))(std::forward<Args>(args)...);
        }) {}
  R operator()(Args... args) const { return call_(object_, std::forward<Args>(args)...); }

 private:
  void* object_;
  R (*call_)(void*, Args...);
};

struct ThreadPoolOptions {
  int num_threads = 1;    ///< workers, the calling thread included; >= 1
  std::vector<int> cpus;  ///< worker i is pinned to cpus[i]; empty: no pinning. Worker 0 is pinned at its first Run.
  bool spin = true;       ///< false where threads outnumber CPUs
};

class ThreadPool {
 public:
  explicit ThreadPool(ThreadPoolOptions options);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const;

  /// Calls fn(worker) once on every worker, 0 <= worker < num_threads(), and returns when all have returned.
  /// Only the owning thread may call it; fn must not call Run. Cost: about 1 us while the workers spin.
  void Run(FunctionRef<void(int worker)> fn);

  /// Calls fn(task, worker) for 0 <= task < num_tasks, each once, tasks taken in rising order by whoever is free.
  /// With one task or one thread everything runs on the caller without waking anybody.
  void ForEach(int64_t num_tasks, FunctionRef<void(int64_t task, int worker)> fn);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace cadre::sys
