#include "deploy/peer_connections.h"

#include <atomic>
#include <limits>

namespace cadre::deploy {
namespace {

constexpr size_t kLine = 64;  // bytes of a cell: no two processes write to one cache line
constexpr int64_t kGone = std::numeric_limits<int64_t>::max();

size_t Bytes(int num_acceptors) {
  return static_cast<size_t>(num_acceptors) * kLine;
}

}  // namespace

Result<PeerConnections> PeerConnections::Create(int num_acceptors) {
  CADRE_ASSIGN(sys::Segment segment, sys::CreateSegment("cadre-connections", Bytes(num_acceptors), false));
  PeerConnections made(std::move(segment), num_acceptors);
  for (int i = 0; i < num_acceptors; ++i) made.SetGone(i);  // until it says something
  return made;
}

Result<PeerConnections> PeerConnections::Map(sys::Fd fd, int num_acceptors) {
  CADRE_ASSIGN(sys::Region region, sys::MapSegment(fd.get(), Bytes(num_acceptors), sys::Access::kReadWrite));
  return PeerConnections({std::move(fd), std::move(region)}, num_acceptors);
}

int64_t* PeerConnections::Cell(int acceptor) const {
  return reinterpret_cast<int64_t*>(segment_.region.data() + static_cast<size_t>(acceptor) * kLine);
}

bool PeerConnections::OthersHaveFewer(int acceptor, int64_t connections) {
  std::atomic_ref(*Cell(acceptor)).store(connections, std::memory_order_relaxed);
  for (int other = 0; other < num_acceptors_; ++other) {
    if (std::atomic_ref(*Cell(other)).load(std::memory_order_relaxed) < connections) return true;
  }
  return false;
}

void PeerConnections::SetGone(int acceptor) {
  std::atomic_ref(*Cell(acceptor)).store(kGone, std::memory_order_relaxed);
}

}  // namespace cadre::deploy
