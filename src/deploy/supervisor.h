#pragma once
// Processes that make one run together: started in order, shown with a name in front of each line, watched,
// and stopped stage by stage when the first of them dies or a stop signal comes.
#include <functional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "sys/process.h"

namespace cadre::deploy {

struct Supervised {
  std::string title;
  sys::SpawnOptions spawn;
  int stage = 0;  ///< the highest is stopped first, and has ended before the next is told
  /// Its end with status 0 is no failure; the run ends when all of these have ended.
  bool may_finish = false;
};

struct SupervisorOptions {
  Duration stop_time = std::chrono::seconds(60);  ///< between SIGTERM and SIGKILL, of each stage
  /// Asked again and again until it says true: that the run is ready, which it also logs. May block for a
  /// second. Empty: not asked.
  std::function<bool()> ready = {};
};

/// Runs them; call from the main thread, after BlockStopSignals. Returns OK after a stop signal, and when all
/// that may finish have. Errors: kUnavailable naming the process that died, how, and its last lines; what
/// could not be started.
Status Supervise(const std::vector<Supervised>& processes, const SupervisorOptions& options);

}  // namespace cadre::deploy
