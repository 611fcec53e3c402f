#pragma once
// The room's front door: an HTTP server that passes requests on to workers. docs/router.md is its page.
#include <memory>
#include <string>

#include "route/discovery.h"
#include "route/options.h"

namespace cadre::route {

class Router {
 public:
  /// Listens at once; workers are taken in as they answer. Errors: those of http::Server::Start, and
  /// kInvalidArgument for a policy that does not exist.
  static Result<std::unique_ptr<Router>> Start(Options options, Resolver resolver = ResolveHost);
  ~Router();  // as Stop(Now())

  int port() const;
  std::string address() const;          ///< "http://127.0.0.1:30000"
  std::string metrics_address() const;  ///< empty without a listener of its own
  int num_healthy() const;
  /// What /metrics says.
  std::string Metrics() const;

  /// Takes no new requests, waits for running ones until `deadline`, cuts the rest off.
  void Stop(TimePoint deadline);

  class Impl;

 private:
  explicit Router(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace cadre::route
