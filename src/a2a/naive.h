#pragma once
#include "a2a/a2a.h"

namespace cadre::a2a {

/// See naive.cc.
Result<std::unique_ptr<AllToAll>> CreateNaive(const Options& options);
int64_t NaiveBytes(const Options& options);

}  // namespace cadre::a2a
