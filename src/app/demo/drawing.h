#pragma once
// What `cadre demo` prints: text made from an Outcome, without a number of its own.
#include <string>

#include "app/demo/ranks.h"
#include "base/json.h"

namespace cadre::app::demo {

/// The whole page but its head: router, dispatch, experts, combine, memory, check.
std::string Draw(const Plan& plan, const Outcome& outcome);

/// Everything in the outcome, the output rows included.
Json ToJson(const Plan& plan, const Outcome& outcome);

}  // namespace cadre::app::demo
