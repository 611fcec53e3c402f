#include "deploy/load_recorder.h"

#include <algorithm>

#include "base/log.h"
#include "eplb/load_record.h"
#include "sys/files.h"

namespace cadre::deploy {

Status CheckRecordFile(const std::string& path) {
  const Status writable = sys::ReplaceFile(path + ".check", "");
  sys::RemoveFile(path + ".check");
  if (writable && !sys::IsFolder(path)) return {};
  return FailParam(Code::kInvalidArgument, "--eplb-record", "--eplb-record {}: {}", path,
                   writable ? "it is a folder" : writable.error().message);
}

LoadRecorder::LoadRecorder(std::string path, const rebalance::Rebalancer& rebalancer, Duration interval)
    : path_(std::move(path)), rebalancer_(rebalancer), interval_(interval), thread_([this] { Loop(); }) {}

LoadRecorder::~LoadRecorder() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  stopped_.notify_all();
  thread_.join();
  Write();
  if (written_.counts.empty() && !failing_)
    LogInfo("--eplb-record {}: there was no report of the load yet, so nothing was written", path_);
}

void LoadRecorder::Loop() {
  std::unique_lock lock(mutex_);
  while (!stopped_.wait_for(lock, interval_, [&] { return stop_; })) {
    lock.unlock();
    Write();
    lock.lock();
  }
}

void LoadRecorder::Write() {
  const int64_t version = rebalancer_.version();
  if (version == version_ && !failing_) return;
  version_ = version;
  const rebalance::Snapshot seen = rebalancer_.snapshot();
  if (std::ranges::all_of(seen.load.counts, [](int64_t count) { return count == 0; })) return;
  if (seen.load == written_ && !failing_) return;
  const Status written =
      sys::ReplaceFile(path_, eplb::WriteLoadRecord({.model = rebalancer_.options().load_model,
                                                     .top_k = rebalancer_.options().top_k,
                                                     .steps = seen.window_steps,
                                                     .load = seen.load}));
  if (written) {
    if (written_.counts.empty() || failing_) LogInfo("the load of the experts is recorded in {}", path_);
    written_ = seen.load;
  } else if (!failing_) {
    LogWarning("--eplb-record: {}; serving goes on, and it is tried again", written.error().message);
  }
  failing_ = !written;
}

}  // namespace cadre::deploy
