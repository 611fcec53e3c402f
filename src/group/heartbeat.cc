#include "group/heartbeat.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "base/format.h"
#include "fabric/fabric.h"
#include "group/silence.h"

namespace cadre::group {
namespace {

struct Watch {
  uint32_t beats = 0;
  Silence since;  // the count was last seen to change
};

}  // namespace

struct Heartbeat::State {
  HeartbeatOptions options;
  std::vector<Watch> watches;
  std::mutex mutex;
  std::condition_variable wake;
  bool stop = false;
  std::thread thread;

  void Look(int rank, Watch& watch) {
    fabric::RankLine& line = options.control.line(rank);
    const uint32_t beats = line.beats.load();
    if (beats != watch.beats || beats == 0 || line.left.load() != 0) {
      watch.beats = beats;
      watch.since.Reset();
      return;
    }
    if (!watch.since.TooLong(options.timeout, options.interval)) return;
    options.control.Abort(rank,
                          Format("rank {} gave no sign of life for {} s (in step {}); is it stopped, or its "
                                 "machine overloaded?",
                                 rank, fabric::SecondsText(options.timeout), line.step.load()));
    if (options.on_silence) options.on_silence();
  }

  void Beat() {
    if (options.rank < 0) return;
    auto& beats = options.control.line(options.rank).beats;
    if (beats.fetch_add(1) == UINT32_MAX) beats.store(1);  // 0 means not yet
  }

  void Run() {
    std::unique_lock lock(mutex);
    while (!stop) {
      Beat();
      for (size_t i = 0; i < watches.size(); ++i) {
        if (options.watched[i] != options.rank && options.control.has(options.watched[i]))
          Look(options.watched[i], watches[i]);
      }
      wake.wait_for(lock, options.interval, [&] { return stop; });
    }
  }
};

Heartbeat::Heartbeat(HeartbeatOptions options) : state_(std::make_unique<State>()) {
  state_->options = std::move(options);
  state_->watches.resize(state_->options.watched.size());
  state_->Beat();  // from here on this rank's silence is noticed
  state_->thread = std::thread([s = state_.get()] { s->Run(); });
}

Heartbeat::~Heartbeat() {
  {
    const std::lock_guard lock(state_->mutex);
    state_->stop = true;
  }
  state_->wake.notify_all();
  state_->thread.join();
}

}  // namespace cadre::group
