#pragma once
// GET /eplb: the one question whose answer may have to come from another process. It is asked from a thread
// of its own, so that no io thread waits; those who ask meanwhile share the answer.
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "engine/engine.h"
#include "http/server.h"

namespace cadre::serve {

using WriterPtr = std::shared_ptr<http::ResponseWriter>;

class EplbQuery {
 public:
  EplbQuery() = default;
  ~EplbQuery() { Stop(); }
  EplbQuery(const EplbQuery&) = delete;
  EplbQuery& operator=(const EplbQuery&) = delete;

  /// Answers `writer` now or later. `engine` lives until Stop has returned. Any thread.
  Status Ask(const engine::Engine& engine, const WriterPtr& writer);
  /// Waits for the question that is under way; later ones are refused.
  void Stop();

 private:
  void Run(const engine::Engine& engine);

  std::mutex mutex_;
  std::vector<WriterPtr> waiting_;
  bool running_ = false, stopped_ = false;
  std::thread thread_;
};

}  // namespace cadre::serve
