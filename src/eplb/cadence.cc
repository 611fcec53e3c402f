#include "eplb/cadence.h"

#include "base/check.h"

namespace cadre::eplb {

Cadence::Cadence(int32_t step_interval)
    : interval_(step_interval), counter_(step_interval - step_interval / 4) {
  CADRE_CHECK(step_interval >= 1);
}

bool Cadence::Advance(bool busy) {
  ++counter_;
  if (busy || counter_ < interval_) return false;
  counter_ = 0;
  return true;
}

}  // namespace cadre::eplb
