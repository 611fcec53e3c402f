#include "deploy/supervisor.h"

#include <poll.h>
#include <signal.h>

#include <algorithm>
#include <set>

#include "base/log.h"
#include "deploy/signals.h"

namespace cadre::deploy {
namespace {

constexpr int kReadyPollMs = 250;
constexpr size_t kLastLines = 5;

class Run {
 public:
  Run(const std::vector<Supervised>& processes, const SupervisorOptions& options)
      : processes_(processes), options_(options) {}

  Status Start() {
    for (const Supervised& process : processes_) {
      auto child = sys::Child::Spawn(process.spawn);
      if (!child) {
        child.error().message = Format("{} is not started: {}", process.title, child.error().message);
        return std::unexpected(std::move(child).error());
      }
      LogInfo("{} is process {}", process.title, (*child)->pid());
      children_.push_back(*std::move(child));
    }
    return {};
  }

  Status Watch() {
    bool ready = !options_.ready;
    while (true) {
      std::vector<int> fds;
      for (size_t i = 0; i < children_.size(); ++i) fds.push_back(finished_[i] ? -1 : children_[i]->pidfd());
      const int signal = WaitForStopSignalFor(fds, ready ? -1 : kReadyPollMs);
      if (signal != 0) {
        LogInfo("{}: stopping; a second signal ends at once", sys::SignalName(signal));
        return {};
      }
      for (size_t i = 0; i < children_.size(); ++i) {
        if (finished_[i]) continue;
        const auto status = children_[i]->Wait(Now());
        if (!status) continue;
        if (!processes_[i].may_finish || !status->ok()) return Died(i, *status);
        finished_[i] = true;
        LogInfo("{} has finished", processes_[i].title);
        if (AllFinished()) return {};
      }
      if (!ready) ready = options_.ready();
    }
  }

  // A router goes before its servers, so that they answer what it has taken.
  void Stop() {
    std::set<int, std::greater<>> stages;
    for (const Supervised& process : processes_) stages.insert(process.stage);
    for (const int stage : stages) StopStage(stage);
  }

 private:
  void StopStage(int stage) {
    for (size_t i = 0; i < children_.size(); ++i) {
      if (processes_[i].stage == stage) children_[i]->Kill(SIGTERM);
    }
    const TimePoint deadline = Now() + options_.stop_time;
    for (size_t i = 0; i < children_.size(); ++i) {
      if (processes_[i].stage != stage || children_[i]->Wait(deadline)) continue;
      LogWarning("{} has not ended within {:.0f} s and is killed", processes_[i].title,
                 Seconds(options_.stop_time));
      children_[i]->Kill(SIGKILL);
      children_[i]->Wait(TimePoint::max());
    }
  }

  bool AllFinished() const {
    for (size_t i = 0; i < processes_.size(); ++i) {
      if (processes_[i].may_finish && !finished_[i]) return false;
    }
    return true;
  }

  Status Died(size_t i, const sys::ExitStatus& status) const {
    std::string last;
    const auto lines = children_[i]->LastLines();
    const size_t from = lines.size() - std::min(lines.size(), kLastLines);
    for (size_t at = from; at < lines.size(); ++at) last += "\n  " + lines[at];
    return Fail(Code::kUnavailable, "{} (process {}) {}; all others are stopped{}{}", processes_[i].title,
                children_[i]->pid(), status.Describe(), last.empty() ? "" : ". It last said:", last);
  }

  const std::vector<Supervised>& processes_;
  const SupervisorOptions& options_;
  std::vector<std::unique_ptr<sys::Child>> children_;
  std::vector<bool> finished_ = std::vector<bool>(processes_.size(), false);
};

}  // namespace

Status Supervise(const std::vector<Supervised>& processes, const SupervisorOptions& options) {
  Run run(processes, options);
  Status outcome = run.Start();
  if (outcome) outcome = run.Watch();
  run.Stop();
  return outcome;
}

}  // namespace cadre::deploy
