#pragma once
// The engine's StepGate over the lockstep of a group of ranks.
#include <memory>

#include "engine/local_engine.h"
#include "group/lockstep.h"

namespace cadre::deploy {

class LockstepGate : public engine::StepGate {
 public:
  /// `step_timeout`: how long to wait for the others before a step.
  LockstepGate(std::unique_ptr<group::Lockstep> lockstep, Duration step_timeout);

  void BeginTurn() override { ticket_ = lockstep_->Ticket(); }
  Result<Turn> Agree(const Offer& offer) override;
  a2a::Phase phase() const override;
  Status Sleep() override;
  void Wake() override { lockstep_->Ring(); }

 private:
  std::unique_ptr<group::Lockstep> lockstep_;
  Duration step_timeout_;
  uint32_t ticket_ = 0;
  group::StepView view_;
};

}  // namespace cadre::deploy
