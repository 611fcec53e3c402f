#pragma once
// How many connections each acceptor has open: a page that the parent makes and all share, so that the next
// connection goes to the one with the fewest.
#include "base/error.h"
#include "sys/shared_memory.h"

namespace cadre::deploy {

class PeerConnections {
 public:
  static Result<PeerConnections> Create(int num_acceptors);
  static Result<PeerConnections> Map(sys::Fd fd, int num_acceptors);

  int fd() const { return segment_.fd.get(); }
  /// Whether another one has fewer than `connections`, which `acceptor` now has.
  bool OthersHaveFewer(int acceptor, int64_t connections);
  /// It is gone, and not to be waited for.
  void SetGone(int acceptor);

 private:
  PeerConnections(sys::Segment segment, int num_acceptors)
      : segment_(std::move(segment)), num_acceptors_(num_acceptors) {}
  int64_t* Cell(int acceptor) const;

  sys::Segment segment_;
  int num_acceptors_;
};

}  // namespace cadre::deploy
