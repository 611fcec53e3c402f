#pragma once
// Exceptions end where a task ends. Our own code throws none, but memory may run out under it and a foreign
// library may have one to spare: the task's owner catches it, and the request that caused it gets an error.
#include "base/error.h"

namespace cadre {

/// To be called in a catch (...) block: what was caught. kUnavailable for memory that ran out, else
/// kInternal.
Error CaughtError();

}  // namespace cadre
