#include "deploy/lockstep_gate.h"

#include <algorithm>

namespace cadre::deploy {

LockstepGate::LockstepGate(std::unique_ptr<group::Lockstep> lockstep, std::vector<size_t> stops_with,
                           Duration step_timeout)
    : lockstep_(std::move(lockstep)), stops_with_(std::move(stops_with)), step_timeout_(step_timeout) {}

Result<engine::StepGate::Turn> LockstepGate::Agree(const Offer& offer) {
  const group::StepWord mine{.num_tokens = static_cast<int32_t>(offer.num_tokens),
                             .num_sequences = static_cast<int32_t>(offer.num_sequences),
                             .ticket = ticket_,
                             .has_work = offer.num_tokens > 0 || offer.wants_step,
                             .generates = offer.generates,
                             .stop = offer.wants_stop,
                             .order = offer.order};
  CADRE_ASSIGN(view_, lockstep_->Exchange(mine, Now() + step_timeout_));
  if (std::ranges::all_of(stops_with_, [&](size_t dp_rank) { return view_.words[dp_rank].stop; })) {
    return Turn::kStop;
  }
  if (view_.CommonOrder() != 0) return Turn::kOrder;
  return view_.AnyWork() ? Turn::kStep : Turn::kSleep;
}

a2a::Phase LockstepGate::phase() const {
  for (const group::StepWord& word : view_.words) {
    if (word.num_tokens > word.num_sequences) return a2a::Phase::kPrefill;
  }
  return a2a::Phase::kDecode;
}

Status LockstepGate::Sleep(Duration most) {
  CADRE_ASSIGN(const bool rung, lockstep_->Sleep(view_, Now() + most));
  if (!rung) lockstep_->Ring();  // what follows is an Exchange, which all must come to
  return {};
}

}  // namespace cadre::deploy
