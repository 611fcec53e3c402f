#pragma once
// How one rank of several is tied to the others, whether ranks are processes or threads.
#include "deploy/rank_runtime.h"
#include "group/join.h"

namespace cadre::deploy {

/// What must be equal on all ranks: a difference would show as a wrong answer or a hang.
std::vector<group::ConfigField> SharedConfig(const config::EngineOptions& options, const ModelSetup& setup);

/// Collective over all ranks of `rendezvous`: compares what must be equal on all, then makes the rank's
/// collectives and its step gate. Errors: kInvalidArgument naming a setting that differs; those of the
/// rendezvous.
Result<RankLinks> MakeLinks(const config::EngineOptions& options, const ModelSetup& setup, RankPlace place,
                            fabric::Rendezvous& rendezvous, TimePoint deadline);

}  // namespace cadre::deploy
