#pragma once
// Where the experts of all ranks lie while they may move: every rank has places of equal size in memory that
// the other ranks of its host map read-only, and receives from other hosts through landing zones. What a
// place holds, and which are in use, is eplb's business (eplb/moves.h).
#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/clock.h"
#include "base/error.h"
#include "fabric/fabric.h"
#include "fabric/rendezvous.h"

namespace cadre::rebalance {

struct ExpertMemoryOptions {
  fabric::Rendezvous* rendezvous = nullptr;
  int64_t place_bytes = 0;    ///< of one expert, a multiple of 64; same on all ranks
  int32_t max_places = 0;     ///< of the rank with the most; same on all ranks
  int64_t message_bytes = 0;  ///< most that one message between two hosts may bring; 0: kMessageBytes
  bool spin = true;
  TimePoint join_deadline = TimePoint::max();
};

class ExpertMemory {
 public:
  static constexpr int64_t kMessageBytes = 4 << 20;
  static constexpr size_t kHeadBytes = 64;  ///< before the experts' bytes of a message

  /// Collective over all ranks. The memory is zeroed; pages come when they are touched. Errors: those of
  /// Rendezvous::Open.
  static Result<std::unique_ptr<ExpertMemory>> Create(const ExpertMemoryOptions& options);

  std::byte* own(int32_t place) { return fabric_->own() + Offset(place); }
  /// Of a rank of this host.
  const std::byte* peer(int rank, int32_t place) const { return fabric_->peer(rank) + Offset(place); }
  int64_t place_bytes() const { return place_bytes_; }
  int64_t message_bytes() const { return message_bytes_; }
  fabric::Fabric& fabric() { return *fabric_; }

  /// Offset of one of the two places in a landing zone that messages of alternating rounds go to.
  size_t LandingPlace(uint32_t round) const {
    return (round & 1) * (kHeadBytes + static_cast<size_t>(message_bytes_));
  }

 private:
  size_t Offset(int32_t place) const {
    return static_cast<size_t>(place) * static_cast<size_t>(place_bytes_);
  }

  int64_t place_bytes_ = 0, message_bytes_ = 0;
  std::unique_ptr<fabric::Fabric> fabric_;
};

}  // namespace cadre::rebalance
