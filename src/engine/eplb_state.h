#pragma once
// What a rank tells of its balancing: a little with every step, all of it when somebody asks.
#include "base/json.h"
#include "engine/engine.h"
#include "rebalance/rebalancer.h"

namespace cadre::engine {

EplbStats EplbStatsOf(const rebalance::Snapshot& snapshot);
/// Any thread.
EplbState EplbStateOf(const rebalance::Rebalancer& rebalancer);

}  // namespace cadre::engine
