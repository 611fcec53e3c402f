#include "deploy/signals.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cstring>
#include <utility>
#include <vector>

#include "base/log.h"

namespace cadre::deploy {
namespace {

sigset_t StopSignals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  return set;
}

}  // namespace

void BlockStopSignals() {
  const sigset_t set = StopSignals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  signal(SIGINT, SIG_DFL);  // a shell starts background jobs with SIGINT ignored
  signal(SIGTERM, SIG_DFL);
  signal(SIGPIPE, SIG_IGN);
}

int WaitForStopSignal() {
  return WaitForStopSignalOr({});
}

int WaitForStopSignalOr(std::initializer_list<int> fds) {
  return WaitForStopSignalFor(std::span(fds.begin(), fds.size()), -1);
}

int WaitForStopSignalFor(std::span<const int> fds, int timeout_ms) {
  const sigset_t set = StopSignals();
  const sys::Fd signals(signalfd(-1, &set, SFD_CLOEXEC));
  std::vector<pollfd> entries = {{signals.get(), POLLIN, 0}};
  for (const int fd : fds) entries.push_back({fd, POLLIN, 0});  // poll leaves negative ones out
  while (poll(entries.data(), entries.size(), timeout_ms) < 0) {
  }
  if ((entries[0].revents & POLLIN) == 0) return 0;
  signalfd_siginfo info = {};
  if (read(signals.get(), &info, sizeof(info)) != sizeof(info)) return SIGTERM;
  pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
  return static_cast<int>(info.ssi_signo);
}

EndOnStopSignal::EndOnStopSignal(std::function<void()> on_stop)
    : done_(eventfd(0, EFD_CLOEXEC)), thread_([this, on_stop = std::move(on_stop)] {
        const int signal = WaitForStopSignalOr({done_.get()});
        if (signal == 0) return;
        LogInfo("{} before the start was complete: stopping", sigabbrev_np(signal));
        on_stop();
        _exit(128 + signal);
      }) {}

EndOnStopSignal::~EndOnStopSignal() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(done_.get(), &one, sizeof(one));
  thread_.join();
}

}  // namespace cadre::deploy
