#pragma once
// Sleeping on a 32-bit word. Unlike std::atomic::wait, the word may lie in memory that processes share, and a wait
// has a deadline.
#include <atomic>
#include <cstdint>

#include "base/clock.h"

namespace cadre::sys {

/// Sleeps while `word` is `expected`, until woken or `deadline`; may return early for no reason.
/// `shared`: the word lies in memory that other processes map.
void FutexWait(std::atomic<uint32_t>& word, uint32_t expected, TimePoint deadline, bool shared);
/// As above without a deadline; only for waits inside one process whose waker cannot die alone.
void FutexWait(std::atomic<uint32_t>& word, uint32_t expected);
/// Wakes all sleepers on `word`.
void FutexWakeAll(std::atomic<uint32_t>& word, bool shared);

/// Tells the core that this is a spin loop.
inline void SpinPause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace cadre::sys
