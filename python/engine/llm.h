#pragma once
// A model inside a Python process: the deployment of `cadre serve` without its HTTP door. Knows no Python.
//
// One thread, the keeper, opens the deployment, turns tokens into text while it is open, and takes it apart.
// It lives as long as the deployment because ranks are killed when the thread that started them ends, and it
// blocks all signals, as do the threads that it starts, so that Ctrl-C reaches Python's main thread and
// nobody else.
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <thread>
#include <vector>

#include "config/parse.h"
#include "deploy/deployment.h"
#include "python/engine/mailbox.h"
#include "session/session.h"

namespace cadre::python {

struct LlmOptions {
  std::vector<std::string> words;  ///< of `cadre serve`: the model and its flags
  std::string program;        ///< `cadre`, for ranks that are processes; may be empty where there are none
  std::string chat_template;  ///< as --chat-template
};

class Llm {
 public:
  /// Begins to open. Errors: what the flags say.
  static Result<std::unique_ptr<Llm>> Open(const LlmOptions& options, const config::Environment& env);
  /// Closes; waits for a start that is under way.
  ~Llm();
  Llm(const Llm&) = delete;
  Llm& operator=(const Llm&) = delete;

  /// Waits for the start; false at the deadline. Errors: what kept the model from starting.
  Result<bool> WaitStarted(TimePoint deadline);
  /// A start or a close is under way.
  bool busy() const;
  /// Ends what runs and gives everything back. Any thread; again: no effect. Does not wait for a start.
  void Close();

  /// Renders, encodes and queues. Results go to `mailbox` under the number `request`; on an error nothing
  /// does. Any thread; concurrent calls are fine.
  Result<std::weak_ptr<session::Generation>> Submit(session::GenerateRequest request, int64_t number,
                                                    std::shared_ptr<Mailbox> mailbox);
  /// The sequences end and the mailbox hears nothing more of them.
  void Cancel(const std::weak_ptr<session::Generation>& generation);

  /// Runs `work(session, deployment)` while the engine is there; kUnavailable once it is closed.
  template <typename Work>
  auto With(Work work)
      -> decltype(work(std::declval<const session::Session&>(), std::declval<deploy::Deployment&>())) {
    const std::shared_lock lock(open_mutex_);
    if (!open_) return std::unexpected(ClosedError());
    return work(*session_, *deployment_);
  }

  /// What a request's error means: the death of a rank, if one has died.
  Error Explain(Error error);
  const session::SamplingDefaults& defaults() const { return defaults_; }
  const config::EngineOptions& options() const { return options_; }

 private:
  using Task = std::move_only_function<void()>;
  Llm(config::EngineOptions options, LlmOptions how, config::ApiOptions api);
  void Keep();
  Status Start();
  void Post(Task task);
  void RunTasks();
  Error ClosedError() const;

  const config::EngineOptions options_;
  const LlmOptions how_;
  const config::ApiOptions api_;

  std::shared_mutex open_mutex_;  // shared: the engine is in use; unique: it opens or closes
  bool open_ = false;             // guarded by open_mutex_
  session::SamplingDefaults defaults_;
  std::unique_ptr<deploy::Deployment> deployment_;
  std::unique_ptr<session::Session> session_;

  mutable std::mutex mutex_;  // guards what is below
  std::condition_variable changed_;
  std::vector<Task> tasks_;
  bool starting_ = true, closing_ = false, ended_ = false;
  Status started_;

  std::mutex join_mutex_;
  std::thread keeper_;
};

}  // namespace cadre::python
