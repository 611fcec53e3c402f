#pragma once
// The machine's network interfaces.
#include <string>
#include <vector>

#include "base/error.h"

namespace cadre::sys {

struct NetworkInterface {
  std::string name;
  std::vector<std::string> addresses;  ///< IPv4 first; no link-local ones
  bool loopback = false;
};

/// Those that are up, in the system's order. Errors: kInternal with the system's reason.
Result<std::vector<NetworkInterface>> ListInterfaces();

}  // namespace cadre::sys
