#pragma once
// A rank's side: lets fronts use this process's engine through sockets.
//
// The rank is born with one connection, to the process that started it (or, on another host, to the first
// node). That first front owns the engine: when it drains it or goes away, the engine ends. It may bring
// further fronts, each with a connection and request ids of its own; one that goes away, or sends what is no
// message of ours, loses its own requests, which are cancelled, and nothing else.
#include <functional>
#include <string>

#include "base/error.h"
#include "engine/engine.h"
#include "sys/fd.h"

namespace cadre::link {

/// Makes a connection to a further front on another host from what the first front said of it. May block for
/// some seconds.
using FrontConnector = std::function<Result<sys::Fd>(const std::string& where)>;

/// Announces the engine and serves the first front until it closes the connection or asks to drain. Returns
/// when the engine has been drained. Errors: kDataLoss for what is no message of ours. Blocks; the engine's
/// events are sent from threads of its own. Without `connect`, further fronts come by descriptor only.
Status ServeEngine(engine::Engine& engine, sys::Fd connection, FrontConnector connect = nullptr);

}  // namespace cadre::link
