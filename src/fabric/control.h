#pragma once
// The page that all ranks of a host and their parent share: who has failed, the doorbell of the idle, signs
// of life.
//
// abort: written once, by whoever first learns that the deployment cannot go on (the parent that saw a rank
// die, a rank whose wait ended). Every wait polls it, so survivors leave at once and name the same culprit.
// doorbell: ranks that have nothing to do sleep here; a new request rings it (group/lockstep.h says how no
// ring is lost).
#include <atomic>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/error.h"

namespace cadre::fabric {

constexpr int kMaxRanksPerHost = 64;

struct alignas(64) RankLine {
  std::atomic<uint32_t> beats;  ///< counts up while the rank's heartbeat thread lives
  std::atomic<uint32_t> left;   ///< 1: the rank has ended on purpose
  std::atomic<int64_t> step;    ///< the step that its engine is in
};

/// Lies in zero-filled shared memory; all fields start at 0.
struct ControlBlock {
  alignas(64) std::atomic<uint32_t> abort_claim;  ///< who may write the reason
  std::atomic<uint32_t> aborted;                  ///< 1: reason and rank are complete
  std::atomic<int32_t> abort_rank;
  char abort_reason[1024];                 ///< zero-terminated
  alignas(64) std::atomic<uint32_t> bell;  ///< counts rings; also the futex word
  std::atomic<uint32_t> sleepers;          ///< who may be sleeping on it
  alignas(64) RankLine ranks[kMaxRanksPerHost];
};

/// A view of the block; copies see the same block.
class Control {
 public:
  Control() = default;
  /// `shared`: other processes map the block.
  Control(ControlBlock* block, bool shared) : block_(block), shared_(shared) {}

  /// Makes every wait of every rank end with `reason`, a whole sentence that names the culprit ("rank 2 was
  /// killed by SIGKILL"). The first caller wins. `rank`: the culprit, or -1.
  void Abort(int rank, std::string_view reason);
  bool aborted() const { return block_->aborted.load(std::memory_order_acquire) != 0; }
  /// The rank named by Abort, or -1.
  int abort_rank() const { return aborted() ? block_->abort_rank.load(std::memory_order_relaxed) : -1; }
  /// Fine, or kUnavailable with the reason.
  Status Check() const;

  /// Rings so far. Take it before looking for work; hand it to AwaitRing after finding none.
  uint32_t Ticket() const { return block_->bell.load(); }
  void Ring();
  /// Sleeps until a ring after `ticket`; true if there was one, false at the deadline. No CPU is used
  /// meanwhile. Errors: the abort.
  Result<bool> AwaitRing(uint32_t ticket, TimePoint deadline);

  RankLine& line(int rank) const { return block_->ranks[rank]; }

 private:
  ControlBlock* block_ = nullptr;
  bool shared_ = false;
};

}  // namespace cadre::fabric
