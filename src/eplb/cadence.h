#pragma once
// When a rebalance is due. Pure counting: every rank of the group advances once a lockstep step, also in
// steps without rows, so all ranks see the same numbers.
#include <cstdint>

namespace cadre::eplb {

class Cadence {
 public:
  /// step_interval >= 1 (checked). The first rebalance is due after step_interval / 4 steps (at least 1),
  /// then one every step_interval steps, as vLLM counts.
  explicit Cadence(int32_t step_interval);

  /// One step was made. True: start a rebalance now. While one is under way (`busy`) none starts; the
  /// counter goes on, and the next is due in the first step that is not busy.
  bool Advance(bool busy);

  /// What vLLM's log line calls "steps until the next rearrangement"; not above 0 while one waits for its
  /// predecessor.
  int64_t StepsUntilNext() const { return interval_ - counter_; }

  /// Starts a full interval from now (after the group changed its size).
  void Restart() { counter_ = 0; }

 private:
  int64_t interval_;
  int64_t counter_;
};

}  // namespace cadre::eplb
