#pragma once
// Error code -> exit status of the process: the one table.
#include "base/error.h"

namespace cadre::app {

/// 2 for a wrong command line, as with vLLM; 3 to 9 for what the world did; 70 for a fault of ours.
int ExitCode(Code code);

/// Prints the error as one line on stderr and returns its exit status.
int Fail(const Error& error);

}  // namespace cadre::app
