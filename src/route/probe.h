#pragma once
// Is a worker there, and how is its KV reached?
#include <functional>
#include <memory>

#include "route/worker.h"

namespace cadre::route {

/// Asks the health path and, of a worker of a pair that may be told to push, /kv_transfer. The worker hears
/// how it went; then `done`, once, on any thread. Not blocking.
void ProbeWorker(const std::shared_ptr<Worker>& worker, const Options& options, std::function<void()> done);

}  // namespace cadre::route
