#include "python/engine/mailbox.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>

namespace cadre::python {

Mailbox::Mailbox() : ready_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

void Mailbox::Put(Update update) {
  const std::lock_guard lock(mutex_);
  updates_.push_back(std::move(update));
  if (updates_.size() == 1) eventfd_write(ready_.get(), 1);
}

std::vector<Update> Mailbox::Take(TimePoint deadline) {
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Now()).count();
  pollfd entry = {ready_.get(), POLLIN, 0};
  poll(&entry, 1, static_cast<int>(std::clamp<int64_t>(left, 0, 60'000)));
  const std::lock_guard lock(mutex_);
  eventfd_t count = 0;
  eventfd_read(ready_.get(), &count);
  return std::exchange(updates_, {});
}

}  // namespace cadre::python
