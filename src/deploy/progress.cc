#include "deploy/progress.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "base/log.h"
#include "sys/memory.h"

namespace cadre::deploy {
namespace {

constexpr int kBarWidth = 30;
constexpr double kTerminalSeconds = 0.1, kLogSeconds = 5.0;  // between two updates

}  // namespace

Progress::Progress(std::string what, bool enabled)
    : what_(std::move(what)),
      enabled_(enabled),
      terminal_(isatty(STDERR_FILENO) == 1),
      start_(Now()),
      last_(start_) {}

void Progress::Update(int64_t done, int64_t total) {
  if (!enabled_ || finished_) return;
  finished_ = done >= total;
  if (!finished_ && SecondsSince(last_) < (terminal_ ? kTerminalSeconds : kLogSeconds)) return;
  last_ = Now();
  Draw(done, total, SecondsSince(start_), finished_);
}

void Progress::Draw(int64_t done, int64_t total, double seconds, bool last) const {
  const double share = total > 0 ? static_cast<double>(done) / static_cast<double>(total) : 1.0;
  const double rate = static_cast<double>(done) / std::max(seconds, 1e-9) / 1e9;
  const std::string numbers =
      Format("{} of {}, {:.2f} GB/s", sys::FormatBytes(done), sys::FormatBytes(total), rate);
  if (!terminal_) {
    LogInfo("{}: {:.0f} % ({})", what_, share * 100, numbers);
    return;
  }
  const int filled = static_cast<int>(share * kBarWidth);
  std::string bar(static_cast<size_t>(filled), '=');
  bar.resize(kBarWidth, ' ');
  std::fprintf(stderr, "\r%s [%s] %3.0f %%  %s\033[K%s", what_.c_str(), bar.c_str(), share * 100,
               numbers.c_str(), last ? "\n" : "");
  std::fflush(stderr);
}

}  // namespace cadre::deploy
