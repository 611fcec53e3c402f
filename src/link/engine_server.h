#pragma once
// A rank's side: lets a front use this process's engine through a socket.
#include "base/error.h"
#include "engine/engine.h"
#include "sys/fd.h"

namespace cadre::link {

/// Announces the engine and serves the connection until the front closes it or asks to drain. Returns when
/// the engine has been drained. Errors: kDataLoss for what is no message of ours. Blocks; the engine's events
/// are sent from a thread of its own.
Status ServeEngine(engine::Engine& engine, sys::Fd connection);

}  // namespace cadre::link
