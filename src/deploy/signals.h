#pragma once
// SIGINT and SIGTERM as events for the main thread.

namespace cadre::deploy {

/// Blocks both in the calling thread and in all that it starts later, and ignores SIGPIPE. Call first in
/// main.
void BlockStopSignals();

/// Waits for one of the two; returns its number. A further one, after this has returned, ends the process at
/// once.
int WaitForStopSignal();

/// As above, and also returns (with 0) when `fd` becomes readable.
int WaitForStopSignalOr(int fd);

}  // namespace cadre::deploy
