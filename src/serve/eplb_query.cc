#include "serve/eplb_query.h"

#include "base/caught.h"
#include "engine/eplb_json.h"
#include "serve/errors.h"

namespace cadre::serve {
namespace {

// A rank answers between two messages, whatever its step does; more than this is a rank that hangs.
constexpr auto kPatience = std::chrono::seconds(5);

http::Response ResponseOf(const engine::Engine& engine) {
  try {
    const auto state = engine.Eplb(Now() + kPatience);
    if (!state) return ErrorResponse(state.error());
    return {200, "application/json", {}, engine::EplbStateJson(*state).Dump()};
  } catch (...) {
    return ErrorResponse(CaughtError());
  }
}

}  // namespace

Status EplbQuery::Ask(const engine::Engine& engine, const WriterPtr& writer) {
  const std::lock_guard lock(mutex_);
  if (stopped_) return Fail(Code::kUnavailable, "the server is shutting down");
  if (!running_) {
    if (thread_.joinable()) thread_.join();  // it has let go of the lock for the last time
    thread_ = std::thread([this, &engine] { Run(engine); });
    running_ = true;
  }
  waiting_.push_back(writer);
  return {};
}

void EplbQuery::Run(const engine::Engine& engine) {
  const http::Response response = ResponseOf(engine);
  std::vector<WriterPtr> writers;
  {
    const std::lock_guard lock(mutex_);
    writers.swap(waiting_);
    running_ = false;
  }
  for (const WriterPtr& writer : writers) writer->Send(response);
}

void EplbQuery::Stop() {
  std::thread last;
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
    last.swap(thread_);
  }
  if (last.joinable()) last.join();
}

}  // namespace cadre::serve
