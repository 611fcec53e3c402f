#pragma once
// What the UCX that is installed could use on this machine; for people who look for a reason.
#include <string>
#include <vector>

#include "base/error.h"

namespace cadre::fabric {

struct UcxTransport {
  std::string transport;  ///< "tcp", "rc_mlx5", "ud_verbs", "srd", ...
  std::string device;     ///< "eth0", "mlx5_0:1"
  bool network = false;   ///< leads to other hosts; others are within a host
};

struct UcxInfo {
  std::string version;
  std::vector<UcxTransport> transports;
};

/// Loads UCX and asks it; tens of milliseconds. Errors: kUnsupported with the reason if it is not installed.
Result<UcxInfo> ListUcxTransports();

}  // namespace cadre::fabric
