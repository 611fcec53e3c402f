#pragma once
// A model in this process, for the commands that ask it themselves.
#include <memory>
#include <string>

#include "app/task_queue.h"
#include "config/serve_options.h"
#include "deploy/deployment.h"
#include "session/session.h"

namespace cadre::app {

class LocalSession {
 public:
  struct Options {
    bool text = true;  ///< false: no tokenizer, answers are token ids alone
    bool cap_max_tokens = false;
    std::string chat_template;  ///< as --chat-template
    int64_t max_sequences = 1024;
  };
  /// Loads the model. Errors: as Deployment::Start and LoadText.
  static Result<std::unique_ptr<LocalSession>> Open(const config::EngineOptions& engine,
                                                    const Options& options);
  /// Ends what still runs.
  ~LocalSession();

  const session::Session& session() const { return *session_; }
  deploy::Deployment& deployment() const { return *deployment_; }
  /// Events of requests started with Post() run here, on the thread that calls queue().RunSome().
  TaskQueue& queue() { return queue_; }
  session::PostFunction Post() {
    return [this](std::move_only_function<void()> task) { queue_.Post(std::move(task)); };
  }
  /// What a request's error means: the death of a rank, if one has died.
  Error Explain(Error error) const;

 private:
  LocalSession() = default;
  TaskQueue queue_;
  std::unique_ptr<deploy::Deployment> deployment_;
  std::unique_ptr<session::Session> session_;
};

}  // namespace cadre::app
