#pragma once
// What the parents of hosts and the coordinator say to each other.
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "fabric/host_table.h"
#include "group/join.h"

namespace cadre::group {

constexpr uint32_t kHostProtocol = 2;
constexpr size_t kMaxHelloBytes = size_t{1} << 20;
constexpr size_t kMaxFrameBytes = size_t{64} << 20;

enum HostFrameKind : uint32_t {
  kHello = 1,  ///< to the coordinator: HostHello
  kRefused,    ///< from it: the parameter at fault or "", why; it then closes the connection
  kWaiting,    ///< from it: who is missing
  kTable,      ///< from it: this host's number, the table, addresses and info of the first; all have joined
  kBeat,       ///< both ways
  kRelay,      ///< to it: hosts, message; from it: the message
  kAbort,      ///< both ways: rank, reason
  kLeave       ///< to it: the sender ends on purpose; from it: the host that does, or "" for the first one
};

struct HostHello {
  uint32_t version = kHostProtocol;  ///< first, so that every version can read it
  int32_t num_ranks_in_all = 0;
  fabric::HostEntry entry;
  std::vector<std::string> links;  ///< kinds of links that the host can make, the best one first
  std::vector<ConfigField> config;

  std::string Encode() const;
  /// With another version only that is read. Nothing if it is no hello.
  static std::optional<HostHello> Decode(const std::string& body);
};

}  // namespace cadre::group
