#pragma once
// What answers HTTP for a deployment: this process, or several processes that share the port.
#include <memory>
#include <string>

#include "config/serve_options.h"
#include "deploy/deployment.h"

namespace cadre::deploy {

class Front {
 public:
  virtual ~Front() = default;

  virtual std::string address() const = 0;
  /// What the port's 503 says until Serve. Any thread.
  virtual void SetStarting(const std::string& why) = 0;
  /// Answers from `deployment`, which is there until Stop has returned. Call once.
  virtual Status Serve(Deployment& deployment) = 0;
  /// Readable when the front has failed for good; -1 where it cannot.
  virtual int failed_fd() const = 0;
  virtual Status Outcome() const = 0;
  /// Requests get `error` from now on: the deployment is over.
  virtual void Fail(const Error& error) = 0;
  /// Drains requests until `deadline` and closes the port. Any thread; call again: no effect.
  virtual void Stop(TimePoint deadline) = 0;
};

/// Opens the port, which answers 503 until Serve: --api-server-count processes if that is more than one.
/// Errors: what the tokenizer, the template, the address or the TLS files say.
Result<std::unique_ptr<Front>> OpenFront(const config::ServeOptions& options, const ModelSetup& setup);

}  // namespace cadre::deploy
