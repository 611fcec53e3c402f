#pragma once
// --eplb-record: what the window of the last steps has counted goes to a file, from a thread of its own, so
// that a slow or full disk holds no step. Rank 0 writes, because all ranks know the same sums. Each time the
// file is replaced whole: a process that is killed leaves the last good one.
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "base/clock.h"
#include "base/error.h"
#include "rebalance/rebalancer.h"

namespace cadre::deploy {

/// Says before the weights are read whether the file can be written. Errors: kInvalidArgument.
Status CheckRecordFile(const std::string& path);

class LoadRecorder {
 public:
  /// Writes when the load has changed, at most once in `interval`, and at the end. A load without any row is
  /// not written: a server that had nothing to do leaves the file of the one before. A write that fails is
  /// logged once until one succeeds again. `rebalancer` outlives this.
  LoadRecorder(std::string path, const rebalance::Rebalancer& rebalancer,
               Duration interval = std::chrono::seconds(5));
  ~LoadRecorder();
  LoadRecorder(const LoadRecorder&) = delete;
  LoadRecorder& operator=(const LoadRecorder&) = delete;

 private:
  void Loop();
  void Write();

  const std::string path_;
  const rebalance::Rebalancer& rebalancer_;
  const Duration interval_;
  int64_t version_ = -1;  // of the snapshot that was written last
  eplb::LoadTable written_;
  bool failing_ = false;
  std::mutex mutex_;
  std::condition_variable stopped_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace cadre::deploy
