#pragma once
// Weights read out of a trainer's memory: what checkpoint wants of it, done by the fabric's UCX.
#include <memory>
#include <string>

#include "checkpoint/remote_source.h"
#include "fabric/remote_memory.h"

namespace cadre::deploy {

std::unique_ptr<checkpoint::RemoteMemory> WeightMemoryOver(std::unique_ptr<fabric::MemoryReader> reader);

/// Errors: kUnsupported if UCX is not installed, kUnavailable if it cannot use this machine.
Result<std::unique_ptr<checkpoint::RemoteMemory>> OpenWeightMemory(const std::string& local_address,
                                                                   int32_t num_lanes);

}  // namespace cadre::deploy
