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

void Outbox::Put(uint32_t kind, std::string body) {
  {
    const std::lock_guard lock(mutex_);
    items_.push_back({kind, std::move(body)});
  }
  changed_.notify_one();
}

void Outbox::Loop() {
  std::vector<Item> items;
  bool broken = false;
  while (true) {
    bool stop = false;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return stop_ || !items_.empty(); });
      items.swap(items_);
      stop = stop_;
    }
    for (const Item& item : items) {
      const TimePoint deadline = Now() + (stop ? Duration(std::chrono::seconds(1)) : Duration(kWriteTimeout));
      if (!broken) broken = !sys::SendFrame(fd_, item.kind, item.body, {}, deadline);
    }
    if (stop && items.empty()) return;
    items.clear();
  }
}

}  // namespace cadre::link
