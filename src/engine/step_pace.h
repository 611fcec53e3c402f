#pragma once
// How many tokens fit into a step of the wanted length, by the speed of the steps before.
#include <algorithm>
#include <cstdint>

namespace cadre::engine {

class StepPace {
 public:
  /// `max_step_seconds`: how long a step may take while sequences wait for their next token.
  explicit StepPace(double max_step_seconds) : max_step_seconds_(max_step_seconds) {}

  /// A step took `seconds`. `most_tokens`: of the rank that brought the most; all ranks take the same time,
  /// so a rank with little to do must not think itself slow. Steps of few tokens say nothing: they take the
  /// time in which the weights are read.
  void Note(double seconds, int64_t most_tokens) {
    if (most_tokens < kMinChunk) return;
    const double measured = seconds / static_cast<double>(most_tokens);
    seconds_per_token_ = seconds_per_token_ <= 0 ? measured : 0.75 * seconds_per_token_ + 0.25 * measured;
  }

  /// At most `all`, and never less than a chunk of 128 tokens. `all` until something has been measured.
  int32_t Budget(int32_t all) const {
    if (seconds_per_token_ <= 0) return all;
    const double fits = max_step_seconds_ / seconds_per_token_;
    return fits >= all ? all : std::max(std::min(kMinChunk, all), static_cast<int32_t>(fits));
  }

 private:
  static constexpr int32_t kMinChunk = 128;  // fewer waste the matrix units on reading weights

  double max_step_seconds_;
  double seconds_per_token_ = 0;  // smoothed; 0: not measured yet
};

}  // namespace cadre::engine
