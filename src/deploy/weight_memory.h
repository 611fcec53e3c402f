#pragma once
// Weights read out of a trainer's memory: what checkpoint wants of it, done by the fabric's UCX.
#include <memory>
#include <string>

#include "checkpoint/remote_source.h"
#include "fabric/remote_memory.h"

namespace cadre::deploy {

/// Errors: kUnsupported if UCX is not installed, kUnavailable if it cannot use this machine.
Result<std::unique_ptr<checkpoint::RemoteMemory>> OpenWeightMemory(const checkpoint::RemoteEnds& ends);
/// The same with a reader's options, for tests.
Result<std::unique_ptr<checkpoint::RemoteMemory>> OpenWeightMemoryWith(
    const checkpoint::RemoteEnds& ends, const fabric::RemoteMemoryOptions& options);

}  // namespace cadre::deploy
