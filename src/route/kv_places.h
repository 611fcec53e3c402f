#pragma once
// How a worker's KV blocks are reached by others, as it says itself (GET /kv_transfer): what lets prefill and
// decode be asked at the same time.
#include <cstdint>
#include <string>
#include <vector>

#include "base/error.h"

namespace cadre::route {

struct KvPlace {
  std::string engine_id, host;
  int port = 0;
};

struct KvPlaces {
  bool push = false;  ///< it can send blocks to, and take blocks from, one who was asked at the same time
  std::vector<KvPlace> ranks;  ///< of each data parallel rank
};

/// Reads the answer. Errors: kDataLoss.
Result<KvPlaces> ParseKvPlaces(std::string_view body);

}  // namespace cadre::route
