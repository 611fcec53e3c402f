#pragma once
// Memory that processes of one host share.
//
// A segment is a memfd: it has no name in /dev/shm and is handed to others over a Unix socket (sockets.h). It
// lives as long as somebody has it open or mapped, so whatever dies, in whatever way, nothing is left behind
// and there is nothing to clean at the next start. It is not bound by the size of /dev/shm (64 MiB in many
// containers) either; it counts as memory of the control group that touches it.
#include <cstddef>
#include <string>

#include "base/error.h"
#include "sys/fd.h"
#include "sys/memory.h"

namespace cadre::sys {

struct Segment {
  Fd fd;
  Region region;  ///< the whole segment, readable and writable
};

/// A new zero-filled segment. `name` is seen in /proc/PID/maps only: give it the run id and the rank.
/// With `seal_writes` no later mapping (a peer's) can be made writable. Errors: kResourceExhausted.
Result<Segment> CreateSegment(const std::string& name, size_t bytes, bool seal_writes);

enum class Access { kRead, kReadWrite };

/// Maps a segment that another process made. Errors: kDataLoss if it is smaller than `bytes`, kUnavailable if
/// it cannot be mapped. The descriptor may be closed afterwards.
Result<Region> MapSegment(int fd, size_t bytes, Access access);

}  // namespace cadre::sys
