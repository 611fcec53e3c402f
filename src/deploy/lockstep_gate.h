#pragma once
// The engine's StepGate over the lockstep of a group of ranks.
#include <memory>
#include <vector>

#include "engine/local_engine.h"
#include "group/lockstep.h"

namespace cadre::deploy {

class LockstepGate : public engine::StepGate {
 public:
  /// `stops_with`: the DP ranks whose requests come from the same front; they stop together, once all have
  /// been asked and have nothing left, whatever the others do. `step_timeout`: how long to wait for the
  /// others before a step.
  LockstepGate(std::unique_ptr<group::Lockstep> lockstep, std::vector<size_t> stops_with,
               Duration step_timeout);

  void BeginTurn() override { ticket_ = lockstep_->Ticket(); }
  Result<Turn> Agree(const Offer& offer) override;
  a2a::Phase phase() const override;
  int64_t most_tokens() const override { return view_.MaxTokens(); }
  bool anybody_generates() const override { return view_.AnyGenerates(); }
  Status Sleep(Duration most) override;
  void Wake() override { lockstep_->Ring(); }

 private:
  std::unique_ptr<group::Lockstep> lockstep_;
  std::vector<size_t> stops_with_;
  Duration step_timeout_;
  uint32_t ticket_ = 0;
  group::StepView view_;
};

}  // namespace cadre::deploy
