#pragma once
// SIGINT and SIGTERM as events for the main thread.
#include <functional>
#include <initializer_list>
#include <span>
#include <thread>

#include "sys/fd.h"

namespace cadre::deploy {

/// Blocks both in the calling thread and in all that it starts later, and ignores SIGPIPE. Call first in
/// main.
void BlockStopSignals();

/// Waits for one of the two; returns its number. A further one, after this has returned, ends the process at
/// once.
int WaitForStopSignal();

/// While one of these lives a stop signal runs `on_stop` on a thread of its own and ends the process, with
/// 128 + the signal's number: for work that cannot be interrupted, as loading. Needs BlockStopSignals.
class EndOnStopSignal {
 public:
  explicit EndOnStopSignal(std::function<void()> on_stop);
  ~EndOnStopSignal();
  EndOnStopSignal(const EndOnStopSignal&) = delete;
  EndOnStopSignal& operator=(const EndOnStopSignal&) = delete;

 private:
  sys::Fd done_;
  std::thread thread_;
};

/// As WaitForStopSignal, and also returns (with 0) when one of `fds` becomes readable; -1 is nothing.
int WaitForStopSignalOr(std::initializer_list<int> fds);

/// The same for any number of descriptors, and returns (with 0) after `timeout_ms` at the latest; -1: never.
int WaitForStopSignalFor(std::span<const int> fds, int timeout_ms);

}  // namespace cadre::deploy
