#pragma once
// Where experts lie when serving begins, and what a person should know about it.
#include <string>
#include <vector>

#include "base/error.h"
#include "config/serve_options.h"
#include "deploy/model_setup.h"
#include "eplb/expert_map.h"

namespace cadre::deploy {

/// Which model a recorded load belongs to: architecture and a hash of config.json.
std::string LoadIdentity(const ModelSetup& setup);

/// [MoE layers] the start maps: by --expert-placement-strategy with the redundant experts as copies, then,
/// with
/// --eplb-init, planned by that recorded load. The same on every rank of every host that is given the same
/// flags and file. One rank gets no copies. Empty for a dense model. Errors: kInvalidArgument for
/// --enable-eplb with a dense model, and for a file that is no recorded load or one of another model; those
/// of sys::ReadFile.
Result<std::vector<eplb::ExpertMap>> StartMaps(const config::ParallelOptions& parallel,
                                               const ModelSetup& setup);

/// FNV-1a of the maps, for the config that hosts compare when they join.
uint64_t HashMaps(const std::vector<eplb::ExpertMap>& maps);

/// What the start log says about the balancer; empty without --enable-eplb.
std::vector<std::string> EplbNotes(const config::ParallelOptions& parallel, const ModelSetup& setup);

}  // namespace cadre::deploy
