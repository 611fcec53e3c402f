#include "serve/liveness.h"

#include "base/json.h"
#include "serve/errors.h"

namespace cadre::serve {

Status LivenessQuery::Ask(engine::Engine& engine, const std::shared_ptr<http::ResponseWriter>& writer) {
  int64_t number = 0;
  {
    const std::lock_guard lock(state_->mutex);
    if (state_->stopped) return Fail(Code::kUnavailable, "the server is shutting down");
    state_->waiting.push_back(writer);
    if (state_->running) return {};
    if (thread_.joinable()) thread_.join();  // it has let go of the lock for the last time
    state_->running = true;
    state_->answer.reset();
    number = ++state_->number;
    thread_ = std::thread(Run, state_, Now() + timeout_);
  }
  engine.Control({.kind = engine::ControlKind::kProbe},
                 [state = state_, number](Result<engine::ControlState> said) {
                   const std::lock_guard lock(state->mutex);
                   if (state->number != number) return;
                   state->answer = said ? Status() : std::unexpected(std::move(said).error());
                   state->changed.notify_all();
                 });
  return {};
}

void LivenessQuery::Run(const std::shared_ptr<State>& state, TimePoint deadline) {
  std::unique_lock lock(state->mutex);
  state->changed.wait_until(lock, deadline, [&] { return state->answer || state->stopped; });
  const bool alive = state->answer && *state->answer;
  const auto writers = std::exchange(state->waiting, {});
  state->running = false;
  lock.unlock();
  const Json body = Json::Object{{"status", alive ? "ok" : "engine_unresponsive"}};
  for (const auto& writer : writers) writer->Send({alive ? 200 : 503, "application/json", {}, body.Dump()});
}

void LivenessQuery::Stop() {
  std::thread last;
  {
    const std::lock_guard lock(state_->mutex);
    state_->stopped = true;
    state_->changed.notify_all();
    last.swap(thread_);
  }
  if (last.joinable()) last.join();
}

}  // namespace cadre::serve
