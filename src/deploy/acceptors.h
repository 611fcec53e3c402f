#pragma once
// --api-server-count above 1: several API server processes ("acceptors") that this one starts and watches.
//
// All accept from one listening socket, which is opened here and inherited: the port, TLS or the Unix socket
// is had or refused once, --port 0 is one port, and a connection that waits in the socket's queue while an
// acceptor dies is taken by another. (With SO_REUSEPORT each would have a queue of its own, lost with it.)
//
// Requests go from an acceptor straight to the ranks; this process carries none. It answers what acceptors
// ask about each other (the figures of /metrics and /load), and starts one that died anew: clients of the
// dead one lose their connections at once, the ranks cancel its requests, the others go on. What it had
// counted stays in the sums. Acceptors that keep dying end the deployment.
#include "deploy/front.h"

namespace cadre::deploy {

/// Returns when `count` acceptors have opened. Errors: theirs.
Result<std::unique_ptr<Front>> OpenAcceptors(const config::ServeOptions& options, int count);

}  // namespace cadre::deploy
