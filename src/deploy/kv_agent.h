#pragma once
// A rank's agent of the KV hand-off: what it is made of here, and its tie to the engine.
#include <memory>
#include <mutex>

#include "deploy/model_setup.h"
#include "engine/local_engine.h"
#include "fabric/rendezvous.h"
#include "handoff/agent.h"
#include "sys/interfaces.h"
#include "sys/shared_memory.h"

namespace cadre::deploy {

/// Agent and engine, each of which calls the other, and one of which is there first and gone last.
class EngineWaker {
 public:
  void Set(engine::LocalEngine* engine) {
    const std::lock_guard lock(mutex_);
    engine_ = engine;
  }
  void Wake() {
    const std::lock_guard lock(mutex_);
    if (engine_ != nullptr) engine_->Wake();
  }

 private:
  std::mutex mutex_;
  engine::LocalEngine* engine_ = nullptr;
};

struct KvAgentInput {
  RankPlace place;
  const sys::Segment* pool = nullptr;        ///< of the KV cache
  fabric::Rendezvous* rendezvous = nullptr;  ///< null for a rank alone
  std::shared_ptr<EngineWaker> waker;
  TimePoint deadline;
};

/// Starts it and, collectively over all ranks, makes the agents of a replica known to each other. Errors:
/// kUnavailable where no port is free, naming what to set; those of the rendezvous.
Result<std::unique_ptr<handoff::Agent>> StartKvAgent(const config::EngineOptions& options,
                                                     const ModelSetup& setup, const KvAgentInput& input);

/// What the engine is told of it.
engine::KvHandOffOptions HandOffOptionsOf(const config::EngineOptions& options, RankPlace place);
/// `agent`: the rank's own; null: none.
engine::KvTransferInfo KvTransferInfoOf(const config::EngineOptions& options, RankPlace place,
                                        const handoff::Agent* agent);

/// An address of this machine that others can reach, as far as it can be known: the side channel's host, what
/// NodeAddresses says, the first address of an interface that is no loopback, or 127.0.0.1.
Result<std::string> AdvertisedHost(const config::EngineOptions& options,
                                   const std::vector<sys::NetworkInterface>& interfaces);

}  // namespace cadre::deploy
