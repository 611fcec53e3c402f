#pragma once
// The API server: routes, keys, CORS and errors around the handlers.
#include <memory>

#include "base/metrics.h"
#include "serve/options.h"
#include "session/session.h"

namespace cadre::serve {

class ApiServer {
 public:
  /// Binds and answers 503 until Serve is called, so that a wrong address, key file or name shows before the
  /// model is loaded. `registry` outlives the server. Errors: kInvalidArgument / kUnavailable with the option
  /// that does not work (address, TLS files, no model name).
  static Result<std::unique_ptr<ApiServer>> Open(ServeOptions options, MetricsRegistry& registry);
  ~ApiServer();  // as Stop(Now())

  int port() const;
  std::string address() const;  ///< for the ready line: "http://0.0.0.0:8000"

  /// What the 503 says from now on; at first that the model is being loaded. Any thread.
  void SetStarting(const std::string& why);
  /// From now on requests go to `session`, which (with its engine) is there until Stop has returned. Call
  /// once.
  void Serve(const session::Session& session);

  /// This front's part of the deployment's figures; nothing before Serve. Any thread.
  FrontPart Part() const;

  /// From now on 503 for new requests, also on /health; drains the engine (Engine::Drain) until `deadline`,
  /// lets the last answers leave, and closes. No handler runs when it returns. Call again: no effect. Any
  /// thread.
  void Stop(TimePoint deadline);

  class Impl;

 private:
  explicit ApiServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace cadre::serve
