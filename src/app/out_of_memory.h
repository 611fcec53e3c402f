#pragma once
// What the process does when memory runs out where nobody can answer for it.

namespace cadre::app {

/// From now on an exception that no thread catches ends the process: with status 6 and one line that says
/// what to lower if it is std::bad_alloc, by abort otherwise.
void EndByNameWhenOutOfMemory();

}  // namespace cadre::app
