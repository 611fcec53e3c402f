#pragma once
#include "a2a/a2a.h"

namespace cadre::a2a {

/// See allgather_reducescatter.cc.
Result<std::unique_ptr<AllToAll>> CreateAllGatherReduceScatter(const Options& options);
int64_t AllGatherReduceScatterBytes(const Options& options);

}  // namespace cadre::a2a
