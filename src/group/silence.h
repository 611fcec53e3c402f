#pragma once
// How long somebody has been silent. Counted in the watcher's own beats as well as in time, so that a pause
// of the watcher (its machine slept, its process was stopped) is nobody's silence.
#include <algorithm>
#include <cstdint>

#include "base/clock.h"

namespace cadre::group {

class Silence {
 public:
  void Reset() { since_ = Now(), beats_ = 0; }
  /// Call it once a beat.
  bool TooLong(Duration timeout, Duration interval) {
    const int64_t enough = std::max<int64_t>(2, timeout / interval / 2);
    return ++beats_ >= enough && Now() - since_ >= timeout;
  }

 private:
  TimePoint since_ = Now();
  int64_t beats_ = 0;
};

}  // namespace cadre::group
