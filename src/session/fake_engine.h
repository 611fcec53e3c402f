#pragma once
// An engine without a model, for tests and for measuring the layers above: it says what it is told to say, at
// the pace it is told, and can be full, slow, failing or dead.
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

#include "engine/engine.h"

namespace cadre::session {

struct FakeEngineOptions {
  engine::ModelInfo model{.vocab_size = 256, .max_model_len = 4096, .num_kv_blocks = 1000, .block_size = 16};
  Duration step_time{};  ///< of one step of all running requests
  size_t max_running = 256;
  size_t max_waiting = 1024;  ///< more: kResourceExhausted
  int fail_after = -1;        ///< tokens after which every request ends with kError; -1: never
  int num_cached_tokens = 0;  ///< reported of each prompt
  int num_ranks = 1;          ///< requests go to them in turn, in name only
  engine::EplbStats eplb;     ///< as every rank tells it
  std::function<Result<engine::EplbState>(TimePoint deadline)> eplb_state;  ///< empty: not balanced
  /// What becomes of an order; empty: it is done.
  std::function<Result<engine::ControlState>(const engine::ControlRequest&)> control;
  /// What is held; empty: the engine does not tell.
  std::function<Result<engine::PrefixChanges>(const engine::PrefixQuery&)> prefixes;
  /// The next token of a request; empty: the prompt over and over.
  std::function<int32_t(const engine::Request&, int index)> next_token;
};

class FakeEngine final : public engine::Engine {
 public:
  explicit FakeEngine(FakeEngineOptions options);
  ~FakeEngine() override;

  const engine::ModelInfo& model_info() const override { return options_.model; }
  Result<std::unique_ptr<engine::RequestHandle>> Submit(engine::Request request,
                                                        std::shared_ptr<engine::EventSink> sink) override;
  std::vector<engine::RankStats> Stats() const override;
  Status Health() const override;
  Result<engine::EplbState> Eplb(TimePoint deadline) const override;
  Status ResetPrefixCache() override;
  void Control(engine::ControlRequest request, engine::ControlDone done) override;
  void Prefixes(engine::PrefixQuery query, engine::PrefixDone done) override;
  void Drain(TimePoint deadline) override;

  void Kill(const std::string& why);  ///< from now on dead: running requests end with kError
  int64_t num_cancelled() const;
  int64_t num_resets() const;
  engine::Request last_request() const;

 private:
  struct Job;
  class Handle;
  void Loop();
  void Step(std::vector<std::shared_ptr<Job>>& running);
  void Finish(Job& job, engine::FinishReason reason, Error error = {}, std::optional<int32_t> stop_token = {},
              std::vector<engine::GeneratedToken> last_tokens = {});

  const FakeEngineOptions options_;
  mutable std::mutex mutex_;
  std::condition_variable wake_, idle_;
  std::deque<std::shared_ptr<Job>> waiting_;
  size_t num_running_ = 0;
  bool draining_ = false, stop_ = false;
  std::optional<TimePoint> drain_deadline_;
  std::string dead_;
  engine::RankStats stats_;
  int64_t num_cancelled_ = 0, num_resets_ = 0, num_submitted_ = 0;
  engine::Request last_request_;
  std::thread thread_;
};

}  // namespace cadre::session
