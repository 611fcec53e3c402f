#pragma once
// Ranks as threads of one process: the same exchange code on plain memory. For tests under ThreadSanitizer,
// the demo and simulations. The threads may stand for several hosts: then each host has a control page of its
// own, and ranks of different hosts share nothing but messages.
#include <memory>
#include <string>
#include <vector>

#include "fabric/rendezvous.h"

namespace cadre::fabric {

class LoopHost {
 public:
  /// All ranks on one host.
  explicit LoopHost(int num_ranks);
  /// Host h has ranks_per_host[h] ranks. `link`: "loop", or a real one over the loopback interface ("tcp").
  /// What a parent would do, pass an abort on to the other hosts, a thread does within 10 ms.
  LoopHost(const std::vector<int>& ranks_per_host, const std::string& link);
  ~LoopHost();

  /// The rendezvous of one rank, for one thread. The host must outlive it and everything opened through it.
  std::unique_ptr<Rendezvous> Join(int rank);
  Control control(int host = 0);

  /// What all links between hosts have carried so far; zero for links of another kind than "loop".
  struct Traffic {
    int64_t num_messages = 0, bytes = 0;
  };
  Traffic traffic() const;

  struct State;

 private:
  std::unique_ptr<State> state_;
};

}  // namespace cadre::fabric
