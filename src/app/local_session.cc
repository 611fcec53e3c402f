#include "app/local_session.h"

#include <poll.h>

#include "deploy/api_front.h"

namespace cadre::app {

Result<std::unique_ptr<LocalSession>> LocalSession::Open(const config::EngineOptions& engine,
                                                         const Options& options) {
  std::unique_ptr<LocalSession> local(new LocalSession());
  CADRE_ASSIGN(deploy::ModelSetup setup, deploy::PrepareModel(engine));
  std::shared_ptr<const session::TextModel> text;
  if (options.text) {
    CADRE_ASSIGN(text, deploy::LoadText(engine.model, setup, options.chat_template));
  }
  CADRE_ASSIGN(session::SessionOptions session_options, deploy::SessionOptionsOf(engine, {}, setup));
  CADRE_ASSIGN(local->deployment_, deploy::Deployment::Start(engine, std::move(setup)));
  session_options.cap_max_tokens = options.cap_max_tokens;
  session_options.max_sequences = options.max_sequences;
  local->session_ = std::make_unique<session::Session>(std::move(session_options),
                                                       local->deployment_->engine(), std::move(text));
  return local;
}

LocalSession::~LocalSession() {
  if (deployment_ != nullptr && session_ != nullptr)
    deployment_->engine().Drain(Now() + std::chrono::seconds(1));
}

Error LocalSession::Explain(Error error) const {
  pollfd entry = {deployment_->ended_fd(), POLLIN, 0};
  // A dead rank is noticed by its waiters and by its parent at about the same time.
  constexpr int kWaitMs = 500;
  if (entry.fd < 0 || poll(&entry, 1, kWaitMs) <= 0) return error;
  const Status outcome = deployment_->Outcome();
  return outcome ? error : outcome.error();
}

}  // namespace cadre::app
