#pragma once
#include "a2a/a2a.h"

namespace cadre::a2a {

/// The exchange of a group of one rank: the table points at the staged rows; combine sums over k in rising k.
Result<std::unique_ptr<AllToAll>> CreateLocal(const Options& options);

}  // namespace cadre::a2a
