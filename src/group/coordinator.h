#pragma once
// The meeting point of hosts. It runs in the first host's parent, listens at the deployment's address, and
// all hosts' parents (its own too) connect to it (host_group.h).
//
// The first host may have no ranks (it only answers requests): then it is in no table, and its settings are
// those that concern the others.
//
// Join: a host shows its ranks, addresses and settings. What does not fit (another version, settings that
// differ, ranks that are taken or do not exist) is refused with a sentence that both sides log; the place
// stays free for a host that is started right. A host that goes away before all are there frees its place.
// Anybody may connect: who does not say a whole hello within 5 s is dropped, and only so many may try at
// once. When all ranks are there everybody gets the table.
//
// Afterwards it passes messages on between hosts, in the order in which they come, and is the path of the
// heartbeat: a host whose connection ends without a word, or that is silent for the timeout, is named to all.
// An abort on one host is passed on to all, and so is a host's leave.
#include <memory>
#include <string>

#include "base/clock.h"
#include "base/error.h"
#include "group/host_protocol.h"

namespace cadre::group {

struct CoordinatorOptions {
  std::string address = {};  ///< to listen at; "": all interfaces
  uint16_t port = 0;         ///< 0: any
  HostHello own = {};        ///< what the first host will say; others are compared with it
  std::string link =
      {};  ///< a kind of link that must be used; "": the first in the first host's list that all have
  int connections = 1;  ///< of a TCP link, for each address
  Duration beat_interval = std::chrono::milliseconds(250);
  Duration timeout = std::chrono::seconds(5);  ///< of silence
  Duration hello_time = std::chrono::seconds(5);
  Duration report_interval = std::chrono::seconds(3);  ///< of who is missing
};

class Coordinator {
 public:
  /// Listens and starts its thread. Errors: kUnavailable if the address or port cannot be had.
  static Result<std::unique_ptr<Coordinator>> Start(CoordinatorOptions options);
  /// Tells all that the deployment ends.
  ~Coordinator();

  uint16_t port() const;

 private:
  struct State;
  explicit Coordinator(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace cadre::group
