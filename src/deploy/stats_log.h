#pragma once
// The line that operators watch: throughput, queue and cache, every few seconds while something happens.
#include <condition_variable>
#include <mutex>
#include <thread>

#include "base/clock.h"
#include "engine/engine.h"

namespace cadre::deploy {

class StatsLog {
 public:
  /// Logs every `interval`; nothing while the engine is idle. `engine` outlives the log.
  StatsLog(const engine::Engine& engine, Duration interval);
  ~StatsLog();
  StatsLog(const StatsLog&) = delete;
  StatsLog& operator=(const StatsLog&) = delete;

 private:
  void Loop();

  const engine::Engine& engine_;
  Duration interval_;
  std::mutex mutex_;
  std::condition_variable stopped_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace cadre::deploy
