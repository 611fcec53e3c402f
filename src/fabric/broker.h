#pragma once
// Ranks as processes of one host. The parent runs a Broker; each rank is born with one end of a socket pair
// and calls JoinHost on it. The broker hands out the control page, passes blobs and memfds between ranks, and
// knows by the end of a connection that a rank has died, so a join names the dead at once instead of waiting
// for them.
//
// With several hosts each parent has a broker for its own ranks. What a rank brings to a meeting with ranks
// of other hosts is passed on to their brokers (uplink.h), and each broker puts the whole together for its
// ranks: there is no central one. A meeting is known by name, ranks and how many of that kind were before.
//
// No shared object has a name: when the last process is gone, however it went, the kernel frees everything.
#include <memory>
#include <string>

#include "fabric/rendezvous.h"
#include "fabric/uplink.h"

namespace cadre::fabric {

class Broker {
 public:
  /// `run_id` appears in the names of segments in /proc/PID/maps.
  static Result<std::unique_ptr<Broker>> Create(int num_ranks, const std::string& run_id);
  ~Broker();
  Broker(const Broker&) = delete;
  Broker& operator=(const Broker&) = delete;

  /// The end for the child that becomes the `rank`th of this host; pass it as a descriptor, then call
  /// CloseChildEnd here.
  int ChildEnd(int rank) const;
  void CloseChildEnd(int rank);
  /// Only for a child made by fork alone: takes the end out and lets the rest of the copied broker be
  /// destroyed.
  sys::Fd TakeChildEnd(int rank);

  /// Starts the broker's thread (fork before, not after): ranks are let in. For a host among others: its own
  /// number of ranks in the table is this broker's, and `uplink` reaches the others.
  void Start();
  void Start(HostTable table, std::shared_ptr<Uplink> uplink);
  /// A message of another host's broker. From any thread.
  void Deliver(std::string message);

  /// When a rank's connection ends without a goodbye, whoever watches the child has this long to Abort with
  /// the reason of its death before the broker does so without one.
  static constexpr auto kGrace = std::chrono::milliseconds(500);

  Control control();
  int num_ranks() const;  ///< of this host

 private:
  struct State;
  explicit Broker(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

/// In a rank's process: meets the broker at the other end of `socket`.
Result<std::unique_ptr<Rendezvous>> JoinHost(sys::Fd socket, TimePoint deadline);

}  // namespace cadre::fabric
