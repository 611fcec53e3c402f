#pragma once
// What an exchange moves on deployments of any size, worked out from random choices by the code that the byte
// counters of running exchanges are checked against (a2a/counts.h).
#include <cstdint>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/json.h"

namespace cadre::app {

struct CountCase {
  std::string backend;
  int hosts = 1, ranks_per_host = 8;
  int64_t rows = 32;  ///< that each rank brings to a step
  int32_t hidden = 7168, top_k = 8, experts = 256;
  int64_t layers = 58;  ///< with experts
};

/// Bytes of one step (all layers, there and back) and one host: the first one, whose ranks are like all
/// others.
struct HostBytes {
  int64_t formula = 0;  ///< what its ranks draw from all other ranks by the name's formula
  int64_t shared = 0;   ///< what they read from other ranks' memory and from landing zones here
  int64_t wire = 0;     ///< what the host receives from other hosts
};

/// Choices are even and distinct, the same for the same shape. Where there are more ranks than experts,
/// experts get redundant copies up to one slot a rank. Errors: kInvalidArgument for an unknown name.
Result<HostBytes> CountExchange(const CountCase& c);

/// Markdown rows "| hosts | ranks | back end | formula | here | between hosts |", in MiB; one for each name
/// and number of hosts.
Result<std::string> CountTable(const CountCase& shape, const std::vector<std::string>& backends,
                               const std::vector<int64_t>& hosts, Json& rows);

}  // namespace cadre::app
