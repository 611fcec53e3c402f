#include "fabric/control.h"

#include <sys/eventfd.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "sys/futex.h"

namespace cadre::fabric {

Result<std::shared_ptr<const Wakers>> Wakers::Create(int num_ranks) {
  std::vector<sys::Fd> fds;
  for (int r = 0; r < num_ranks; ++r) {
    fds.emplace_back(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!fds.back()) {
      return Fail(Code::kResourceExhausted,
                  "cannot make an event descriptor; is the limit on open files low?");
    }
  }
  return std::make_shared<const Wakers>(std::move(fds));
}

void Wakers::Wake(uint64_t ranks) const {
  for (; ranks != 0; ranks &= ranks - 1) {
    const auto r = static_cast<size_t>(std::countr_zero(ranks));
    if (r < fds_.size()) eventfd_write(fds_[r].get(), 1);
  }
}

void Control::Abort(int rank, std::string_view reason) {
  uint32_t free = 0;
  if (!block_->abort_claim.compare_exchange_strong(free, 1)) return;
  const size_t n = std::min(reason.size(), sizeof(block_->abort_reason) - 1);
  std::memcpy(block_->abort_reason, reason.data(), n);
  block_->abort_reason[n] = '\0';
  block_->abort_rank.store(rank, std::memory_order_relaxed);
  block_->aborted.store(1, std::memory_order_release);
  Ring();
}

Status Control::Check() const {
  if (!aborted()) return {};
  return Fail(Code::kUnavailable, "{}", static_cast<const char*>(block_->abort_reason));
}

// Ring and AwaitRing are Dekker partners: the ringer changes the bell, then looks for sleepers; a sleeper
// says that it is one, then looks at the bell. All four are seq_cst, so one of them sees the other.
void Control::Ring() {
  block_->bell.fetch_add(1);
  if (block_->sleepers.load() > 0) sys::FutexWakeAll(block_->bell, shared_);
  if (wakers_ == nullptr) return;
  if (const uint64_t pollers = block_->pollers.load(); pollers != 0) wakers_->Wake(pollers);
}

Result<bool> Control::AwaitRing(uint32_t ticket, TimePoint deadline) {
  block_->sleepers.fetch_add(1);
  while (block_->bell.load() == ticket && !aborted() && Now() < deadline) {
    sys::FutexWait(block_->bell, ticket, deadline, shared_);
  }
  block_->sleepers.fetch_sub(1);
  CADRE_TRY(Check());
  return block_->bell.load() != ticket;
}

}  // namespace cadre::fabric
