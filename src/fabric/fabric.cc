// The part of fabric.h on one host; fabric_hosts.cc has the rest.
#include "fabric/fabric.h"

#include <algorithm>
#include <utility>

#include "base/format.h"
#include "sys/futex.h"

namespace cadre::fabric {
namespace {

constexpr int kSpins = 2000;     // 20 to 90 us, as in sys/threads.cc
constexpr int kPortSpins = 200;  // about the same: each looks at the sockets
// A sleeper looks at the abort word this often; whoever aborts cannot know on which flags others sleep.
constexpr auto kAbortPoll = std::chrono::milliseconds(20);

}  // namespace

std::string NameRanks(std::span<const int> world_ranks) {
  if (world_ranks.size() == 1) return Format("rank {}", world_ranks[0]);
  std::string text = "ranks ";
  for (size_t i = 0; i < world_ranks.size(); ++i) {
    if (i > 0) text += i + 1 == world_ranks.size() ? " and " : ", ";
    text += Format("{}", world_ranks[i]);
  }
  return text;
}

std::string SecondsText(Duration duration) {
  const double seconds = Seconds(duration);
  return seconds >= 9.95 ? Format("{:.0f}", seconds) : Format("{:.2g}", seconds);
}

void Fabric::Publish(int flag, uint32_t round, uint32_t count) {
  Raise(Line(index_, flag), round, count);
}

void Fabric::Raise(FlagLine& line, uint32_t round, uint32_t count) {
  line.word.store(uint64_t{round} << 32 | count);  // seq_cst: before the look for sleepers
  if (line.sleepers.load() > 0) {
    line.bell.fetch_add(1);
    sys::FutexWakeAll(line.bell, shared_);
  }
  if (const uint64_t pollers = line.pollers.load(); pollers != 0) control_.wakers()->Wake(pollers);
}

// Makes the error known to all; if somebody else has found the cause first, that is the error.
Status Fabric::Blame(int rank, Code code, const std::string& text) {
  control_.Abort(rank, text);
  if (const Status first = control_.Check(); !first && first.error().message != text) return first;
  return std::unexpected(Error{code, text, {}});
}

Status Fabric::FailMissing(int flag, uint32_t round, std::span<const int> members, Duration waited,
                           const WaitContext& context) {
  std::vector<int> missing;
  for (const int r : members) {
    if (!Reached(Line(r, flag).word.load(), round)) missing.push_back(world_rank(r));
  }
  if (missing.empty()) return {};  // they came at the last moment
  return Blame(missing[0], Code::kDeadlineExceeded,
               Format("{} did not arrive at {} of step {} within {} s", NameRanks(missing), context.what,
                      context.step, SecondsText(waited)));
}

// A carrier sleeps in poll, on its sockets and its waker; all others on the line's futex. Both say so before
// their last look at the word.
void Fabric::SleepOn(FlagLine& line, uint32_t bell, TimePoint until) {
  if (port_ == nullptr) return sys::FutexWait(line.bell, bell, until, shared_);
  if (!port_->Progress()) port_->Sleep(until);
}

Status Fabric::AwaitLine(FlagLine& line, uint32_t round, TimePoint deadline, int host) {
  for (int i = !spec_.spin ? 1 : port_ ? kPortSpins : kSpins; i > 0; --i) {
    if (Reached(line.word.load(std::memory_order_acquire), round)) return {};
    if (port_ != nullptr) port_->Progress();
    sys::SpinPause();
  }
  const uint64_t bit = control_.Bit(world_rank(index_));
  port_ == nullptr ? line.sleepers.fetch_add(1) : line.pollers.fetch_or(bit);
  Status status;
  while (true) {
    const uint32_t bell = line.bell.load();
    if (Reached(line.word.load(), round)) break;
    if (status = control_.Check(); !status) break;
    if (status = CheckLink(host); !status) break;
    const TimePoint now = Now();
    if (now >= deadline) {
      status = Fail(Code::kDeadlineExceeded, "late");
      break;
    }
    SleepOn(line, bell, std::min(deadline, now + kAbortPoll));
  }
  port_ == nullptr ? line.sleepers.fetch_sub(1) : line.pollers.fetch_and(~bit);
  return status;
}

std::optional<uint32_t> Fabric::Peek(int r, int flag, uint32_t round) const {
  const uint64_t word = Line(r, flag).word.load(std::memory_order_acquire);
  if (!Reached(word, round)) return std::nullopt;
  return static_cast<uint32_t>(word);
}

Result<uint32_t> Fabric::Await(int r, int flag, uint32_t round, const WaitContext& context) {
  const TimePoint start = Now();
  if (const Status status = AwaitLine(Line(r, flag), round, context.deadline, -1); !status) {
    if (status.error().code != Code::kDeadlineExceeded) return std::unexpected(status.error());
    CADRE_TRY(FailMissing(flag, round, {&r, 1}, context.deadline - start, context));
  }
  return static_cast<uint32_t>(Line(r, flag).word.load(std::memory_order_acquire));
}

Status Fabric::AwaitAll(int flag, uint32_t round, uint32_t* counts, const WaitContext& context) {
  TimePoint start = TimePoint::max();  // read the clock only if somebody is not there yet
  const auto [begin, count] = local();
  for (int r = begin; r < begin + count; ++r) {
    uint64_t word = Line(r, flag).word.load(std::memory_order_acquire);
    if (!Reached(word, round)) {
      if (start == TimePoint::max()) start = Now();
      if (const Status status = AwaitLine(Line(r, flag), round, context.deadline, -1); !status) {
        if (status.error().code != Code::kDeadlineExceeded) return status;
        std::vector<int> all;
        for (int m = begin; m < begin + count; ++m) all.push_back(m);
        CADRE_TRY(FailMissing(flag, round, all, context.deadline - start, context));
      }
      word = Line(r, flag).word.load(std::memory_order_acquire);
    }
    if (counts != nullptr) counts[r] = static_cast<uint32_t>(word);
  }
  return {};
}

}  // namespace cadre::fabric
