#pragma once
// Ranks as threads of one process: the same exchange code on plain memory. For tests under ThreadSanitizer,
// the demo and simulations.
#include <memory>

#include "fabric/rendezvous.h"

namespace cadre::fabric {

class LoopHost {
 public:
  explicit LoopHost(int num_ranks);
  ~LoopHost();

  /// The rendezvous of one rank, for one thread. The host must outlive it and everything opened through it.
  std::unique_ptr<Rendezvous> Join(int rank);
  Control control();

  struct State;

 private:
  std::unique_ptr<State> state_;
};

}  // namespace cadre::fabric
