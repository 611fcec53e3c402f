#include "sys/futex.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <climits>

namespace cadre::sys {
namespace {

void Wait(std::atomic<uint32_t>& word, uint32_t expected, const timespec* until, bool shared) {
  const int op = FUTEX_WAIT_BITSET | (shared ? 0 : FUTEX_PRIVATE_FLAG);
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), op, expected, until, nullptr, FUTEX_BITSET_MATCH_ANY);
}

}  // namespace

void FutexWait(std::atomic<uint32_t>& word, uint32_t expected, TimePoint deadline, bool shared) {
  // FUTEX_WAIT_BITSET takes an absolute CLOCK_MONOTONIC time, which is what steady_clock counts.
  const auto ns = std::chrono::duration_cast<std::chrono::nanoseconds>(deadline.time_since_epoch()).count();
  const timespec until = {static_cast<time_t>(ns / 1'000'000'000), static_cast<long>(ns % 1'000'000'000)};
  Wait(word, expected, &until, shared);
}

void FutexWait(std::atomic<uint32_t>& word, uint32_t expected) { Wait(word, expected, nullptr, false); }

void FutexWakeAll(std::atomic<uint32_t>& word, bool shared) {
  const int op = FUTEX_WAKE | (shared ? 0 : FUTEX_PRIVATE_FLAG);
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), op, INT_MAX, nullptr, nullptr, 0);
}

}  // namespace cadre::sys
