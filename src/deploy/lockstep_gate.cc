#include "deploy/lockstep_gate.h"

#include <algorithm>

namespace cadre::deploy {

LockstepGate::LockstepGate(std::unique_ptr<group::Lockstep> lockstep, std::vector<size_t> stops_with,
                           Duration step_timeout)
    : lockstep_(std::move(lockstep)), stops_with_(std::move(stops_with)), step_timeout_(step_timeout) {}

Result<engine::StepGate::Turn> LockstepGate::Agree(int64_t num_tokens, bool wants_stop) {
  const group::StepWord mine{.num_tokens = static_cast<int32_t>(num_tokens),
                             .ticket = ticket_,
                             .has_work = num_tokens > 0,
                             .stop = wants_stop};
  CADRE_ASSIGN(view_, lockstep_->Exchange(mine, Now() + step_timeout_));
  if (std::ranges::all_of(stops_with_, [&](size_t dp_rank) { return view_.words[dp_rank].stop; })) {
    return Turn::kStop;
  }
  return view_.AnyWork() ? Turn::kStep : Turn::kSleep;
}

Status LockstepGate::Sleep() {
  // The deadline only bounds one sleep; an idle server goes back to it at once.
  CADRE_ASSIGN([[maybe_unused]] const bool rung, lockstep_->Sleep(view_, Now() + std::chrono::hours(1)));
  return {};
}

}  // namespace cadre::deploy
