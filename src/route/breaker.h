#pragma once
// When a worker gets requests: two state machines without a clock or threads of their own.
//
// Health says whether the worker answers its probes. The circuit breaker says whether it answers requests: a
// worker may well be healthy by its probe and fail whatever it is asked.
#include <deque>

#include "route/options.h"

namespace cadre::route {

/// Probes and lost connections. Unhealthy until the first probe succeeds; then `failure_threshold` failures
/// in a row end it and `success_threshold` successes in a row bring it back.
class HealthState {
 public:
  explicit HealthState(const HealthOptions& options) : options_(options) {}
  bool healthy() const { return healthy_; }
  bool ever_healthy() const { return ever_healthy_; }
  bool Success();  ///< true if it is healthy now and was not
  bool Failure();  ///< true if it was healthy and is not now

 private:
  const HealthOptions options_;
  bool healthy_ = false, ever_healthy_ = false;
  int successes_ = 0, failures_ = 0;
};

/// Closed: all requests. Open, after `failure_threshold` failures in a row within `window`: none for
/// `open_time`. Then half open: one at a time, until `success_threshold` successes close it or a failure
/// opens it again.
class Breaker {
 public:
  enum class State { kClosed, kOpen, kHalfOpen };
  explicit Breaker(const BreakerOptions& options) : options_(options) {}

  State state(TimePoint now) const;
  bool Admits(TimePoint now) const;
  /// A request goes to the worker. True: it is a trial, and whoever sent it says how it ended or calls
  /// TrialGone.
  bool Begin(TimePoint now);
  bool Success(TimePoint now);  ///< true if it closed now
  bool Failure(TimePoint now);  ///< true if it opened now
  void TrialGone() { trial_ = false; }

 private:
  const BreakerOptions options_;
  bool open_ = false, trial_ = false;
  TimePoint opened_at_ = {};
  int successes_ = 0;
  std::deque<TimePoint> failures_;  // since the last success
};

}  // namespace cadre::route
