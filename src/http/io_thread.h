#pragma once
// Private to the room: one thread with its event loop, and a mailbox through which other threads hand it
// work. The mailbox makes a burst of tasks cost one wake, and gives a clean end: after Stop tasks are
// dropped, never kept.
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <mutex>
#include <thread>
#include <vector>

#include "base/caught.h"
#include "base/log.h"
#include "http/server.h"

namespace cadre::http {

namespace asio = boost::asio;

class IoThread {
 public:
  IoThread() : guard_(asio::make_work_guard(io_)) {}
  ~IoThread() { Stop(); }

  asio::io_context& io() { return io_; }
  bool IsCurrent() { return io_.get_executor().running_in_this_thread(); }

  void Start() {
    thread_ = std::thread([this] {
      while (true) {
        try {
          io_.run();
          return;
        } catch (...) {  // connections guard themselves; nothing may end the thread of all others
          LogError("an I/O thread goes on after: {}", CaughtError().message);
        }
      }
    });
  }

  /// False after Stop: the task is dropped.
  bool Post(Task task) {
    {
      const std::lock_guard lock(mutex_);
      if (stopped_) return false;
      mailbox_.push_back(std::move(task));
      if (mailbox_.size() > 1) return true;  // whoever put the first one has woken the thread
    }
    asio::post(io_, [this] { RunMailbox(); });
    return true;
  }

  /// Ends the loop and joins. Not from the thread itself.
  void Stop() {
    std::vector<Task> dropped;
    {
      const std::lock_guard lock(mutex_);
      stopped_ = true;
      dropped.swap(mailbox_);
    }
    guard_.reset();
    io_.stop();
    if (thread_.joinable()) thread_.join();
    // What was still due holds its owner, and the owner holds this: let it run out (all sockets are closed by
    // now).
    io_.restart();
    while (io_.poll() > 0) {
    }
  }

 private:
  void RunMailbox() {
    {
      const std::lock_guard lock(mutex_);
      running_.swap(mailbox_);
    }
    for (Task& task : running_) {
      try {
        task();
      } catch (...) {
        LogError("a task of an I/O thread failed: {}", CaughtError().message);
      }
      task = nullptr;
    }
    running_.clear();
  }

  asio::io_context io_{1};
  asio::executor_work_guard<asio::io_context::executor_type> guard_;
  std::thread thread_;
  std::mutex mutex_;
  std::vector<Task> mailbox_;  // guarded by mutex_
  bool stopped_ = false;       // guarded by mutex_
  std::vector<Task> running_;  // of the thread alone
};

}  // namespace cadre::http
