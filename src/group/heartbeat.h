#pragma once
// Signs of life. Each rank's heartbeat thread counts up its own word on the host's control page and looks at
// the others'. It finds what a closed connection does not show: a stopped process, a machine that swaps.
#include <functional>
#include <memory>
#include <vector>

#include "base/clock.h"
#include "fabric/control.h"

namespace cadre::group {

struct HeartbeatOptions {
  fabric::Control control;
  int rank = 0;              ///< -1: only watches (the parent)
  std::vector<int> watched;  ///< ranks whose silence ends the deployment; this rank is skipped, and those of
                             ///< other hosts (host_group.h watches hosts)
  Duration interval = std::chrono::milliseconds(250);
  Duration timeout = std::chrono::seconds(5);
  std::function<void()> on_silence = {};  ///< called after the abort, on the heartbeat's thread; may be empty
};

/// Beats and watches from construction to destruction. A rank is watched from its first beat until it has
/// left on purpose. One that is silent for `timeout` is named by Control::Abort: "rank 2 gave no sign of life
/// for 5 s". A pause of the whole machine is nobody's silence: it is counted in this thread's own beats as
/// well as in time.
class Heartbeat {
 public:
  explicit Heartbeat(HeartbeatOptions options);
  ~Heartbeat();
  Heartbeat(const Heartbeat&) = delete;
  Heartbeat& operator=(const Heartbeat&) = delete;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace cadre::group
