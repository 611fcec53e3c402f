#pragma once
// Connections between the front of the first node and engines on other nodes. The first node listens; each of
// the other nodes' parents connects once for each of its engines, says the secret that it got at the join,
// and hands the connection to the rank.
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "sys/fd.h"

namespace cadre::deploy {

class LinkListener {
 public:
  /// Listens at `address` ("": all interfaces), any port.
  static Result<LinkListener> Create(const std::string& address);

  /// What the others need to connect, for their join; opaque.
  const std::string& info() const { return info_; }
  /// From now on only who has the new info gets in: who comes late for the last round is turned away.
  const std::string& Renew();
  /// Waits for one connection from each of `ranks`. Who does not know the secret is dropped. Errors:
  /// kDeadlineExceeded with the missing ranks; whatever `check` says, asked now and then.
  Result<std::map<int, sys::Fd>> AcceptAll(std::vector<int> ranks, const std::function<Status()>& check,
                                           TimePoint deadline);

 private:
  sys::Fd listener_;
  uint16_t port_ = 0;
  std::string secret_, info_;
};

/// The other side: `info` of the listener, the first node's addresses, and the world rank whose engine it is.
Result<sys::Fd> ConnectLink(const std::string& info, const std::vector<std::string>& addresses, int rank,
                            TimePoint deadline);

}  // namespace cadre::deploy
