#include "link/outbox.h"

#include "sys/sockets.h"

namespace cadre::link {
namespace {

// A peer on the same host that reads nothing for so long is dead; its reader, or the watcher of processes,
// says so.
constexpr auto kWriteTimeout = std::chrono::seconds(30);

}  // namespace

Outbox::Outbox(int fd) : fd_(fd), thread_([this] { Loop(); }) {}

Outbox::~Outbox() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

void Outbox::Put(uint32_t kind, std::string body, sys::Fd fd) {
  {
    const std::lock_guard lock(mutex_);
    items_.push_back({kind, std::move(body), std::move(fd)});
  }
  changed_.notify_one();
}

bool Outbox::Write(const Item& item, TimePoint deadline) const {
  const int fd = item.fd.get();
  const std::span<const int> fds(&fd, item.fd ? 1 : 0);
  return sys::SendFrame(fd_, item.kind, item.body, fds, deadline).has_value();
}

void Outbox::Flush(TimePoint deadline) {
  std::unique_lock lock(mutex_);
  idle_.wait_until(lock, deadline, [&] { return items_.empty() && !writing_; });
}

void Outbox::Loop() {
  std::vector<Item> items;
  bool broken = false;
  while (true) {
    bool stop = false;
    {
      std::unique_lock lock(mutex_);
      writing_ = false;
      if (items_.empty()) idle_.notify_all();
      changed_.wait(lock, [&] { return stop_ || !items_.empty(); });
      items.swap(items_);
      stop = stop_;
      writing_ = true;
    }
    for (const Item& item : items) {
      const TimePoint deadline = Now() + (stop ? Duration(std::chrono::seconds(1)) : Duration(kWriteTimeout));
      if (!broken) broken = !Write(item, deadline);
    }
    if (stop && items.empty()) return;
    items.clear();
  }
}

}  // namespace cadre::link
