#include "route/breaker.h"

namespace cadre::route {

bool HealthState::Success() {
  failures_ = 0;
  if (healthy_) return false;
  ++successes_;
  if (ever_healthy_ && successes_ < options_.success_threshold) return false;
  successes_ = 0;
  return healthy_ = ever_healthy_ = true;
}

bool HealthState::Failure() {
  successes_ = 0;
  if (!healthy_) return false;
  if (++failures_ < options_.failure_threshold) return false;
  failures_ = 0;
  healthy_ = false;
  return true;
}

Breaker::State Breaker::state(TimePoint now) const {
  if (!open_) return State::kClosed;
  return now < opened_at_ + options_.open_time ? State::kOpen : State::kHalfOpen;
}

bool Breaker::Admits(TimePoint now) const {
  if (!options_.enabled) return true;
  const State at = state(now);
  return at == State::kClosed || (at == State::kHalfOpen && !trial_);
}

bool Breaker::Begin(TimePoint now) {
  if (!options_.enabled || state(now) != State::kHalfOpen) return false;
  return trial_ = true;
}

bool Breaker::Success(TimePoint now) {
  if (!options_.enabled) return false;
  if (state(now) != State::kHalfOpen) {
    if (!open_) failures_.clear();
    return false;
  }
  trial_ = false;
  if (++successes_ < options_.success_threshold) return false;
  open_ = false;
  successes_ = 0;
  failures_.clear();
  return true;
}

bool Breaker::Failure(TimePoint now) {
  if (!options_.enabled) return false;
  const State at = state(now);
  if (at == State::kOpen) return false;  // of a request from before
  if (at == State::kHalfOpen) {
    trial_ = false;
    successes_ = 0;
    opened_at_ = now;
    return true;
  }
  failures_.push_back(now);
  while (!failures_.empty() && now - failures_.front() > options_.window) failures_.pop_front();
  if (static_cast<int>(failures_.size()) < options_.failure_threshold) return false;
  failures_.clear();
  open_ = true;
  opened_at_ = now;
  return true;
}

}  // namespace cadre::route
