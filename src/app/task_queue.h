#pragma once
// Work for the main thread: a session's events, and Ctrl-C. Built on a POSIX semaphore, because a signal
// handler may post one.
#include <semaphore.h>

#include <functional>
#include <mutex>
#include <vector>

namespace cadre::app {

class TaskQueue {
 public:
  using Task = std::move_only_function<void()>;

  TaskQueue() { sem_init(&wakes_, 0, 0); }
  ~TaskQueue() { sem_destroy(&wakes_); }
  TaskQueue(const TaskQueue&) = delete;
  TaskQueue& operator=(const TaskQueue&) = delete;

  /// Any thread.
  void Post(Task task) {
    {
      const std::lock_guard lock(mutex_);
      tasks_.push_back(std::move(task));
    }
    Wake();
  }
  /// Makes RunSome return; from any thread and from signal handlers.
  void Wake() { sem_post(&wakes_); }

  /// Waits for a wake and runs what has gathered.
  void RunSome() {
    while (sem_wait(&wakes_) != 0) {
    }
    std::vector<Task> tasks;
    {
      const std::lock_guard lock(mutex_);
      tasks.swap(tasks_);
    }
    for (Task& task : tasks) task();
  }

 private:
  sem_t wakes_;
  std::mutex mutex_;
  std::vector<Task> tasks_;  // guarded by mutex_
};

}  // namespace cadre::app
