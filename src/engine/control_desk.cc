#include "engine/control_desk.h"

#include <algorithm>

namespace cadre::engine {

void ControlDesk::Take(ControlCall call, SeqId next_sequence, Scheduler& scheduler) {
  switch (call.request.kind) {
    case ControlKind::kProbe:
      return call.done(State());
    case ControlKind::kResume:
      phase_ = Phase::kRunning;
      scheduler.AdmitAll();
      for (ControlCall& waiting : std::exchange(draining_, {})) waiting.done(State());  // it says: not paused
      return call.done(State());
    case ControlKind::kWeights:
      call.deadline = Now() + std::chrono::seconds(call.request.weights.timeout_s);
      orders_.push_back(std::move(call));
      return;
    case ControlKind::kPause:
      break;
  }
  // A second pause may ask for more than the first: an end where that one waited, an empty cache.
  clears_cache_ = call.request.clear_cache || (pausing() && clears_cache_);
  if (call.request.mode == PauseMode::kWait && !paused()) {
    if (phase_ == Phase::kRunning) border_ = next_sequence;
    phase_ = Phase::kDraining;
    scheduler.AdmitBelow(border_);
    draining_.push_back(std::move(call));
    return;
  }
  EnterPause(scheduler);
  call.done(State());
}

void ControlDesk::EnterPause(Scheduler& scheduler) {
  phase_ = Phase::kPaused;
  scheduler.AdmitAll();
  if (clears_cache_) scheduler.ForgetComputed();
  for (ControlCall& waiting : std::exchange(draining_, {})) waiting.done(State());
}

void ControlDesk::Advance(Scheduler& scheduler) {
  if (phase_ == Phase::kDraining) {
    const auto old = [&](const Sequence* sequence) { return sequence->id < border_; };
    if (std::ranges::none_of(scheduler.All(), old)) EnterPause(scheduler);
  }
  if (orders_.empty()) return;
  const TimePoint now = Now();
  std::erase_if(orders_, [&](ControlCall& call) {
    if (call.deadline > now) return false;
    call.done(Fail(
        Code::kDeadlineExceeded,
        "not all ranks were given the order within {} s; where each node has a front of its own, send it "
        "to every front",
        call.request.weights.timeout_s));
    return true;
  });
}

uint64_t ControlDesk::NextOrder() const {
  uint64_t next = 0;
  for (const ControlCall& call : orders_) {
    const uint64_t id = call.request.weights.Id();
    if (next == 0 || id < next) next = id;
  }
  return next;
}

std::vector<ControlCall> ControlDesk::TakeOrder(uint64_t id) {
  std::vector<ControlCall> taken;
  std::erase_if(orders_, [&](ControlCall& call) {
    if (call.request.weights.Id() != id) return false;
    taken.push_back(std::move(call));
    return true;
  });
  return taken;
}

void ControlDesk::RefuseAll(const Error& error) {
  for (auto* calls : {&draining_, &orders_}) {
    for (ControlCall& call : std::exchange(*calls, {})) call.done(std::unexpected(error));
  }
}

}  // namespace cadre::engine
