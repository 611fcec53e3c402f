#pragma once
// Links between "hosts" that are threads of one process: queues in memory. Bytes are copied into the queue
// and out of it, as a network would. For tests and simulation; the slow twin of the other kinds.
#include <atomic>
#include <map>
#include <memory>
#include <mutex>

#include "fabric/host_link.h"

namespace cadre::fabric {

struct LoopPipe;

/// Where the ends of one process's links meet. Outlives its ports.
struct LoopNet {
  std::mutex mutex;
  std::map<uint64_t, std::shared_ptr<LoopPipe>> waiting;     // one end is there
  std::atomic<int64_t> num_messages = 0, message_bytes = 0;  // sent over all links
};

std::shared_ptr<HostPort> MakeLoopPort(LoopNet& net, int waker);

}  // namespace cadre::fabric
