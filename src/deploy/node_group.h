#pragma once
// This node among the nodes of a deployment: the meeting point (on the first node), the join, and the
// connections between the first node's front and engines elsewhere.
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "config/serve_options.h"
#include "deploy/engine_links.h"
#include "deploy/model_setup.h"
#include "group/coordinator.h"
#include "group/host_group.h"

namespace cadre::deploy {

class NodeGroup {
 public:
  /// Returns when all nodes are there. `on_waiting` hears what is missing, and why, now and then. Errors: an
  /// address or port that cannot be had, a refusal, the deadline.
  static Result<std::unique_ptr<NodeGroup>> Join(const config::EngineOptions& options,
                                                 const ModelSetup& setup,
                                                 const std::function<void(const std::string&)>& on_waiting,
                                                 TimePoint deadline);

  group::HostGroup& hosts() { return *hosts_; }
  /// World ranks of engines on other nodes whose requests come from this node's front; or the other way
  /// round: engines here whose requests come from the first node. Empty unless the first node answers for
  /// all.
  std::vector<int> EnginesAway() const;
  /// What to tell them on the first node, so that they connect once more: then AcceptEngines. "" where
  /// nobody is away.
  std::string InviteEngines();
  /// Connections to them, on the first node: call after the ranks have been started.
  Result<std::map<int, sys::Fd>> AcceptEngines(const std::function<Status()>& check, TimePoint deadline);
  /// The connection of an engine here to the first node's front.
  Result<sys::Fd> ConnectEngine(int rank, TimePoint deadline);

 private:
  explicit NodeGroup(const ModelSetup& setup, int tp_size) : launch_(setup.launch), tp_size_(tp_size) {}

  config::Launch launch_;
  int tp_size_;
  std::unique_ptr<group::Coordinator> coordinator_;
  std::optional<LinkListener> links_;
  std::unique_ptr<group::HostGroup> hosts_;
};

}  // namespace cadre::deploy
