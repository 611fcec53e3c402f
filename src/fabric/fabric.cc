#include "fabric/fabric.h"

#include <algorithm>
#include <utility>

#include "base/format.h"
#include "sys/futex.h"

namespace cadre::fabric {
namespace {

constexpr int kSpins = 2000;  // 20 to 90 us, as in sys/threads.cc
// A sleeper looks at the abort word this often; whoever aborts cannot know on which flags others sleep.
constexpr auto kAbortPoll = std::chrono::milliseconds(20);

uint32_t RoundOf(uint64_t word) {
  return static_cast<uint32_t>(word >> 32);
}
bool Reached(uint64_t word, uint32_t round) {
  return static_cast<int32_t>(RoundOf(word) - round) >= 0;
}

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

Fabric::Fabric(FabricSpec spec, int index, Control control, bool shared, std::vector<Mapping> data,
               std::vector<Mapping> flags)
    : spec_(std::move(spec)),
      index_(index),
      control_(control),
      shared_(shared),
      data_(std::move(data)),
      flags_(std::move(flags)) {}

void Fabric::Publish(int flag, uint32_t round, uint32_t count) {
  FlagLine& line = Line(index_, flag);
  line.word.store(uint64_t{round} << 32 | count);  // seq_cst: before the look for sleepers
  if (line.sleepers.load() > 0) {
    line.bell.fetch_add(1);
    sys::FutexWakeAll(line.bell, shared_);
  }
}

Status Fabric::FailMissing(int flag, uint32_t round, std::span<const int> members, Duration waited,
                           const WaitContext& context) {
  std::vector<int> missing;
  for (const int r : members) {
    if (!Reached(Line(r, flag).word.load(), round)) missing.push_back(world_rank(r));
  }
  if (missing.empty()) return {};  // they came at the last moment
  const std::string text = Format("{} did not arrive at {} of step {} within {} s", NameRanks(missing),
                                  context.what, context.step, SecondsText(waited));
  control_.Abort(missing[0], text);
  CADRE_TRY([&]() -> Status {  // somebody else may have found the cause first
    if (control_.abort_rank() == missing[0]) return {};
    return control_.Check();
  }());
  return Fail(Code::kDeadlineExceeded, "{}", text);
}

Status Fabric::AwaitLine(int r, int flag, uint32_t round, const WaitContext& context) {
  FlagLine& line = Line(r, flag);
  for (int i = spec_.spin ? kSpins : 1; i > 0; --i) {
    if (Reached(line.word.load(std::memory_order_acquire), round)) return {};
    sys::SpinPause();
  }
  line.sleepers.fetch_add(1);
  Status status;
  while (true) {
    const uint32_t bell = line.bell.load();
    if (Reached(line.word.load(), round)) break;
    if (status = control_.Check(); !status) break;
    const TimePoint now = Now();
    if (now >= context.deadline) {
      status = Fail(Code::kDeadlineExceeded, "late");
      break;
    }
    sys::FutexWait(line.bell, bell, std::min(context.deadline, now + kAbortPoll), shared_);
  }
  line.sleepers.fetch_sub(1);
  return status;
}

Result<uint32_t> Fabric::Await(int r, int flag, uint32_t round, const WaitContext& context) {
  const TimePoint start = Now();
  if (const Status status = AwaitLine(r, flag, round, context); !status) {
    if (status.error().code != Code::kDeadlineExceeded) return std::unexpected(status.error());
    CADRE_TRY(FailMissing(flag, round, {&r, 1}, context.deadline - start, context));
  }
  return static_cast<uint32_t>(Line(r, flag).word.load(std::memory_order_acquire));
}

Status Fabric::AwaitAll(int flag, uint32_t round, uint32_t* counts, const WaitContext& context) {
  TimePoint start = TimePoint::max();  // read the clock only if somebody is not there yet
  for (int r = 0; r < size(); ++r) {
    uint64_t word = Line(r, flag).word.load(std::memory_order_acquire);
    if (!Reached(word, round)) {
      if (start == TimePoint::max()) start = Now();
      if (const Status status = AwaitLine(r, flag, round, context); !status) {
        if (status.error().code != Code::kDeadlineExceeded) return status;
        std::vector<int> all;
        for (int m = 0; m < size(); ++m) all.push_back(m);
        CADRE_TRY(FailMissing(flag, round, all, context.deadline - start, context));
      }
      word = Line(r, flag).word.load(std::memory_order_acquire);
    }
    if (counts != nullptr) counts[r] = static_cast<uint32_t>(word);
  }
  return {};
}

}  // namespace cadre::fabric
