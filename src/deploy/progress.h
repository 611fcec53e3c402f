#pragma once
// A progress line for a person: a bar on a terminal, a log line now and then elsewhere.
#include <cstdint>
#include <string>

#include "base/clock.h"

namespace cadre::deploy {

class Progress {
 public:
  /// `what`: "loading weights". Nothing is shown if `enabled` is false.
  Progress(std::string what, bool enabled);

  /// Bytes done so far and in all. Any thread, one at a time.
  void Update(int64_t done, int64_t total);

 private:
  void Draw(int64_t done, int64_t total, double seconds, bool last) const;

  std::string what_;
  bool enabled_;
  bool terminal_;
  TimePoint start_, last_;
  bool finished_ = false;
};

}  // namespace cadre::deploy
