#pragma once
// The processes of one launch, however they were started: what torchrun's variables say, made into ranks that
// share memory within a host and send messages between hosts.
//
// On each host the process with local rank 0 is what a parent is elsewhere: it runs the broker
// (fabric/broker.h) and, over several hosts, the host's seat in the group (group/host_group.h). The others
// find it at an abstract Unix socket whose name follows from the address, the port and the host's first rank;
// each is handed its end of the broker's socket there. So nothing lies in the file system, and users are told
// apart by the kernel.
//
// A rank leaves on purpose (Leave, together with all others) or it has died: then everybody's waits end with
// its name. What a killed process cannot say its heartbeat does not say either, within 5 s.
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "fabric/rendezvous.h"

namespace cadre::python {

struct WorldOptions {
  int rank = 0, size = 1;
  int local_rank = 0, local_size = 1;  ///< among the processes of this host; ranks of a host are neighbours
  std::string address = "127.0.0.1";   ///< of rank 0's host
  uint16_t port = 29500;  ///< taken by the launcher; over several hosts ranks meet at the one after it
  Duration timeout = std::chrono::seconds(60);
};

/// Something that lives in the memory that ranks share, and must go before it.
class Tenant {
 public:
  virtual ~Tenant() = default;
  virtual void Vacate() = 0;
};

class World {
 public:
  /// Returns when all processes have come. Errors: kInvalidArgument for numbers that make no sense or that
  /// the processes do not share, kDeadlineExceeded with who is missing, kUnavailable.
  static Result<std::shared_ptr<World>> Join(const WorldOptions& options);
  /// Without Leave before: tells the others that this rank has gone.
  ~World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  const WorldOptions& options() const;
  /// Whether the ranks can still talk. Errors: kUnavailable with who has failed, or that this rank has left.
  Status Check() const;
  /// Null after Leave or Abandon.
  fabric::Rendezvous* rendezvous();
  void Add(const std::shared_ptr<Tenant>& tenant);

  /// Together with all others: returns when all have come, or with the reason why they cannot. Afterwards
  /// only the destructor may be called.
  Status Leave();
  /// Alone: the others' waits end with `reason`.
  void Abandon(const std::string& reason);

 private:
  struct State;
  explicit World(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace cadre::python
