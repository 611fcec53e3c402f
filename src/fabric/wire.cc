#include "fabric/wire.h"

namespace cadre::fabric {

std::string_view WireReader::TakeView(size_t bytes) {
  if (bytes > rest_.size()) {
    ok_ = false;
    rest_ = {};
    return {};
  }
  const std::string_view taken = rest_.substr(0, bytes);
  rest_.remove_prefix(bytes);
  return taken;
}

void WireReader::Take(void* to, size_t bytes) {
  const std::string_view taken = TakeView(bytes);
  if (!taken.empty()) std::memcpy(to, taken.data(), bytes);
}

}  // namespace cadre::fabric
