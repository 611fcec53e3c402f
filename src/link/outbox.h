#pragma once
// Frames on their way out. Putting one never blocks and never calls the system: the engine thread and the
// HTTP threads are not held by a slow peer. One thread writes what has gathered.
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "sys/fd.h"

namespace cadre::link {

class Outbox {
 public:
  /// `fd`: a connected stream socket, owned by the caller and open for the outbox's life.
  explicit Outbox(int fd);
  /// Writes what is left (for at most a second), then ends the thread.
  ~Outbox();

  /// Any thread. After the peer has gone, frames are dropped: the reader of the same socket tells the end.
  /// `fd` travels along, on Unix sockets.
  void Put(uint32_t kind, std::string body, sys::Fd fd = {});
  /// Waits until all that was put is written, or cannot be.
  void Flush(TimePoint deadline);

 private:
  struct Item {
    uint32_t kind;
    std::string body;
    sys::Fd fd;
  };
  bool Write(const Item& item, TimePoint deadline) const;
  void Loop();

  const int fd_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Item> items_;
  bool stop_ = false, writing_ = false;
  std::condition_variable idle_;
  std::thread thread_;
};

}  // namespace cadre::link
