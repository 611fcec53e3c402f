#pragma once
// A host's parent among the parents of a deployment's hosts.
//
// Join meets the others at the coordinator (coordinator.h), in whatever order the hosts are started: it tries
// again and again until its deadline, says what it waits for, and returns when all ranks are there. From then
// on the connection carries
//   - what the brokers of the hosts say to each other (fabric/uplink.h),
//   - a beat every quarter of a second both ways: a coordinator that is silent for the timeout, or whose
//     connection ends, aborts this host,
//   - aborts: one on this host's control page goes to all others within a beat, and the other way round.
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "fabric/broker.h"
#include "group/host_protocol.h"

namespace cadre::group {

struct HostGroupOptions {
  std::string address;  ///< of the coordinator
  uint16_t port = 0;
  HostHello own = {};  ///< entry.addresses may be empty: the one that reaches the coordinator
  TimePoint deadline = TimePoint::max();
  Duration beat_interval = std::chrono::milliseconds(250);
  Duration timeout = std::chrono::seconds(5);  ///< of silence
  Duration report_interval = std::chrono::seconds(3);
  /// Called while Join waits: at changes, and every few seconds; from Join's thread. May be null.
  std::function<void(const std::string& waiting_for)> on_waiting = nullptr;
};

class HostGroup {
 public:
  /// Errors: kInvalidArgument (the parameter named) and others of a refusal; kDeadlineExceeded with what was
  /// missing or why the coordinator could not be reached.
  static Result<std::unique_ptr<HostGroup>> Join(HostGroupOptions options);
  /// Tells the others the abort, if there is one, or else that this host leaves on purpose.
  ~HostGroup();

  const fabric::HostTable& table() const;
  /// The first host, which may have no ranks and so no place in the table: its addresses and info only.
  const fabric::HostEntry& first() const;
  /// On a host without ranks, which has no broker: fine, or the abort that ended_fd tells of.
  Status Outcome() const;
  /// Starts the broker with the table, and passes on what comes for it; call it once. The broker must outlive
  /// this object.
  void Serve(fabric::Broker& broker);
  /// Readable once the deployment is over: aborted (the control page says why), or a host has left.
  int ended_fd() const;

 private:
  struct State;
  explicit HostGroup(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

/// The line that people look for when all links stand: "Connected all rings: ...", with the hosts in a ring.
std::string DescribeRing(const fabric::HostTable& table);

}  // namespace cadre::group
