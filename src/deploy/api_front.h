#pragma once
// The HTTP front over a deployment: text side, session, API server.
#include <functional>
#include <memory>

#include "base/metrics.h"
#include "config/serve_options.h"
#include "deploy/model_setup.h"
#include "engine/engine.h"
#include "serve/server.h"
#include "session/session.h"
#include "sys/fd.h"

namespace cadre::deploy {

/// The tokenizer and chat template of the options; null with --skip-tokenizer-init.
Result<std::shared_ptr<const session::TextModel>> LoadText(const config::ModelOptions& options,
                                                           const ModelSetup& setup,
                                                           const std::string& chat_template);

/// The session's settings that follow from model and options.
Result<session::SessionOptions> SessionOptionsOf(const config::EngineOptions& options,
                                                 const config::ApiOptions& api, const ModelSetup& setup);

/// Where and how the flags want the server; `setup` may lack its memory plan.
http::ServerOptions HttpOptionsOf(const config::HttpOptions& options);

/// For one of several fronts; all empty for the only one.
struct SharedFront {
  sys::Fd listener;                        ///< the socket that all accept from
  std::function<bool(int64_t)> gives_way;  ///< http::ServerOptions::gives_way
  serve::AskFronts ask_fronts;
};

class ApiFront {
 public:
  /// Reads the tokenizer and opens the port, which answers 503 until Serve. Errors: what the tokenizer, the
  /// template, the address or the TLS files say.
  static Result<std::unique_ptr<ApiFront>> Open(const config::ServeOptions& options, const ModelSetup& setup,
                                                SharedFront shared = {});
  /// What the 503 says meanwhile.
  void SetStarting(const std::string& why) { server_->SetStarting(why); }
  /// Answers from `engine`, which is there until Stop has returned. Call once.
  void Serve(engine::Engine& engine);
  /// What this front has counted.
  serve::FrontPart Part() const { return server_->Part(); }

  std::string address() const { return server_->address(); }
  /// Drains the engine until `deadline` and closes. Any thread.
  void Stop(TimePoint deadline) { server_->Stop(deadline); }

 private:
  ApiFront() = default;
  MetricsRegistry metrics_;
  std::shared_ptr<const session::TextModel> text_;
  session::SessionOptions session_options_;
  std::unique_ptr<session::Session> session_;
  std::unique_ptr<serve::ApiServer> server_;
};

}  // namespace cadre::deploy
