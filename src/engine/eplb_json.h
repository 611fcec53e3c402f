#pragma once
// The state of balancing as the JSON of GET /eplb, there and back.
#include "base/json.h"
#include "engine/engine.h"

namespace cadre::engine {

/// `state` must be whole. Its member "load" is a recorded load, as --eplb-init reads it.
Json EplbStateJson(const EplbState& state);

/// What a picture needs of it back: maps, layout, load, model and policy, epoch and balancedness. Errors:
/// kInvalidArgument, naming the member.
Result<EplbState> ReadEplbState(const Json& json);

}  // namespace cadre::engine
