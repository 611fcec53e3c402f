#pragma once
// Threads for the few requests whose parsing and encoding would hold up an io thread. Bounded: a full queue
// refuses.
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "base/caught.h"
#include "base/log.h"

namespace cadre::serve {

class WorkerPool {
 public:
  using Work = std::move_only_function<void()>;

  WorkerPool(int num_threads, size_t max_waiting) : max_waiting_(max_waiting) {
    for (int i = 0; i < num_threads; ++i) threads_.emplace_back([this] { Loop(); });
  }
  ~WorkerPool() { Stop(); }

  bool Post(Work work) {
    {
      const std::lock_guard lock(mutex_);
      if (stop_ || waiting_.size() >= max_waiting_) return false;
      waiting_.push_back(std::move(work));
    }
    wake_.notify_one();
    return true;
  }

  /// Finishes what runs, drops what waits.
  void Stop() {
    std::deque<Work> dropped;
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
      dropped.swap(waiting_);
    }
    wake_.notify_all();
    for (std::thread& thread : threads_) {
      if (thread.joinable()) thread.join();
    }
  }

 private:
  void Loop() {
    while (true) {
      Work work;
      {
        std::unique_lock lock(mutex_);
        wake_.wait(lock, [this] { return stop_ || !waiting_.empty(); });
        if (stop_) return;
        work = std::move(waiting_.front());
        waiting_.pop_front();
      }
      try {
        work();
      } catch (
          ...) {  // the work's own guard has run out of memory: whoever waits for it hears that it is gone
        LogError("work on a request failed: {}", CaughtError().message);
      }
    }
  }

  const size_t max_waiting_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Work> waiting_;
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace cadre::serve
