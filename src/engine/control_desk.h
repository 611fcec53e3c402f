#pragma once
// The orders that an engine has been given and not yet answered, as the engine thread sees them.
//
//   running -> (kAbort, kKeep) -> paused -> running
//   running -> (kWait) draining: no new sequence is admitted -> paused, when the old ones have ended
//
// An order about weights waits here until all ranks show the same one. Ranks may hold several, in different
// order: each shows the one with the smallest id, so that they meet.
#include <optional>
#include <vector>

#include "base/ids.h"
#include "engine/control.h"
#include "engine/scheduler.h"

namespace cadre::engine {

struct ControlCall {
  ControlRequest request;
  ControlDone done;
  TimePoint deadline = TimePoint::max();  ///< kWeights: after it the order is given up
};

class ControlDesk {
 public:
  /// `next_sequence`: ids from here on belong to requests that come later. kAbort is the caller's to carry
  /// out.
  void Take(ControlCall call, SeqId next_sequence, Scheduler& scheduler);

  /// Ends pauses whose requests have come to their end, and orders that have waited too long.
  void Advance(Scheduler& scheduler);

  bool paused() const { return phase_ == Phase::kPaused; }
  bool pausing() const { return phase_ != Phase::kRunning; }
  /// The order about weights to be carried out next; 0: none.
  uint64_t NextOrder() const;
  /// Takes out all calls that gave this order.
  std::vector<ControlCall> TakeOrder(uint64_t id);
  /// What weights were replaced means for the requests here: whether what they have computed stays.
  bool keeps_cache() const { return paused() && !clears_cache_; }

  void SetGeneration(int64_t generation) { generation_ = generation; }
  ControlState State() const { return {.paused = pausing(), .generation = generation_}; }
  int64_t generation() const { return generation_; }

  /// Answers everything with `error`.
  void RefuseAll(const Error& error);

 private:
  enum class Phase : uint8_t { kRunning, kDraining, kPaused };
  void EnterPause(Scheduler& scheduler);

  Phase phase_ = Phase::kRunning;
  SeqId border_;               // kDraining: requests from here on wait
  bool clears_cache_ = false;  // of the pause under way
  std::vector<ControlCall> draining_;
  std::vector<ControlCall> orders_;
  int64_t generation_ = 1;
};

}  // namespace cadre::engine
