#pragma once
// A thread that runs tasks at their time.
#include <condition_variable>
#include <mutex>
#include <queue>
#include <thread>
#include <vector>

#include "base/caught.h"
#include "base/clock.h"
#include "base/log.h"
#include "http/server.h"

namespace cadre::route {

class Timer {
 public:
  Timer() : thread_([this] { Run(); }) {}
  ~Timer() { Stop(); }

  /// Any thread. Tasks must not block. After Stop they are dropped.
  void After(Duration delay, http::Task task) {
    const std::lock_guard lock(mutex_);
    if (stopped_) return;
    tasks_.push_back({Now() + delay, std::move(task)});
    std::push_heap(tasks_.begin(), tasks_.end(), Later);
    signal_.notify_one();
  }

  /// No task runs when it returns, nor after it. Not from a task.
  void Stop() {
    std::vector<Entry> dropped;
    {
      const std::lock_guard lock(mutex_);
      stopped_ = true;
      dropped.swap(tasks_);
      signal_.notify_one();
    }
    if (thread_.joinable()) thread_.join();
  }

 private:
  struct Entry {
    TimePoint at;
    http::Task task;
  };
  static bool Later(const Entry& a, const Entry& b) { return a.at > b.at; }

  void Run() {
    std::unique_lock lock(mutex_);
    while (!stopped_) {
      if (tasks_.empty()) {
        signal_.wait(lock);
        continue;
      }
      if (const TimePoint at = tasks_.front().at; at > Now()) {
        signal_.wait_until(lock, at);
        continue;
      }
      std::pop_heap(tasks_.begin(), tasks_.end(), Later);
      http::Task task = std::move(tasks_.back().task);
      tasks_.pop_back();
      lock.unlock();
      try {
        task();
      } catch (...) {
        LogError("a task of the timer failed: {}", CaughtError().message);
      }
      task = nullptr;
      lock.lock();
    }
  }

  std::mutex mutex_;
  std::condition_variable signal_;
  std::vector<Entry> tasks_;  // a heap by time; guarded by mutex_
  bool stopped_ = false;      // guarded by mutex_
  std::thread thread_;        // last: it uses the others
};

}  // namespace cadre::route
