#pragma once
// The words that this process was started with: its children get them too, so that all read the same options.
#include <string>
#include <vector>

#include "base/error.h"

namespace cadre::deploy {

/// Without the program's own name.
Result<std::vector<std::string>> OwnWords();

}  // namespace cadre::deploy
