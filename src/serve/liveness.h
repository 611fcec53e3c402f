#pragma once
// GET /liveness: whether every engine still comes to the end of a step. One question at a time is under way;
// those who ask meanwhile share its answer, and a clock of its own bounds it, since an engine that hangs says
// nothing.
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "engine/engine.h"
#include "http/server.h"

namespace cadre::serve {

class LivenessQuery {
 public:
  explicit LivenessQuery(Duration timeout) : timeout_(timeout), state_(std::make_shared<State>()) {}
  ~LivenessQuery() { Stop(); }
  LivenessQuery(const LivenessQuery&) = delete;
  LivenessQuery& operator=(const LivenessQuery&) = delete;

  /// Answers `writer` within the time-out. `engine` lives until Stop has returned. Any thread.
  Status Ask(engine::Engine& engine, const std::shared_ptr<http::ResponseWriter>& writer);
  /// Answers who waits, and refuses later questions.
  void Stop();

 private:
  // The engine may answer when nobody waits any more.
  struct State {
    std::mutex mutex;
    std::condition_variable changed;
    std::vector<std::shared_ptr<http::ResponseWriter>> waiting;
    bool running = false, stopped = false;
    int64_t number = 0;  // of the question under way
    std::optional<Status> answer;
  };
  static void Run(const std::shared_ptr<State>& state, TimePoint deadline);

  const Duration timeout_;
  const std::shared_ptr<State> state_;
  std::thread thread_;  // guarded by State::mutex
};

}  // namespace cadre::serve
