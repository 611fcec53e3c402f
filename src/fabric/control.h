#pragma once
// The page that all ranks of a host and their parent share: who has failed, the doorbell of the idle, signs
// of life.
//
// abort: written once, by whoever first learns that the deployment cannot go on (the parent that saw a rank
// die, a rank whose wait ended). Every wait polls it, so survivors leave at once and name the same culprit.
// doorbell: ranks that have nothing to do sleep here; a new request rings it (group/lockstep.h says how no
// ring is lost).
//
// A rank that carries messages to other hosts cannot sleep on a futex, because it has to hear its sockets as
// well: it sleeps in poll, and is woken by an event descriptor of its own (Wakers).
//
// Ranks are world ranks everywhere; the block knows which of them live on its host.
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "sys/fd.h"

namespace cadre::fabric {

constexpr int kMaxRanksPerHost = 64;

struct alignas(64) RankLine {
  std::atomic<uint32_t> beats;  ///< counts up while the rank's heartbeat thread lives
  std::atomic<uint32_t> left;   ///< 1: the rank has ended on purpose
  std::atomic<int64_t> step;    ///< the step that its engine is in
};

/// The event descriptors of a host's ranks; every process of the host holds all of them.
class Wakers {
 public:
  /// New ones. Errors: kResourceExhausted.
  static Result<std::shared_ptr<const Wakers>> Create(int num_ranks);
  explicit Wakers(std::vector<sys::Fd> fds) : fds_(std::move(fds)) {}

  /// Wakes the ranks whose bits (by place on the host) are set.
  void Wake(uint64_t ranks) const;
  int fd(int local_rank) const { return fds_[static_cast<size_t>(local_rank)].get(); }
  int size() const { return static_cast<int>(fds_.size()); }

 private:
  std::vector<sys::Fd> fds_;
};

/// Lies in zero-filled shared memory; all fields start at 0.
struct ControlBlock {
  int32_t first_rank, num_ranks;                  ///< of the host; written before any rank maps the block
  alignas(64) std::atomic<uint32_t> abort_claim;  ///< who may write the reason
  std::atomic<uint32_t> aborted;                  ///< 1: reason and rank are complete
  std::atomic<int32_t> abort_rank;
  char abort_reason[1024];                 ///< zero-terminated
  alignas(64) std::atomic<uint32_t> bell;  ///< counts rings; also the futex word
  std::atomic<uint32_t> sleepers;          ///< how many may be sleeping on it
  std::atomic<uint64_t> pollers;           ///< which ranks (by place on the host) may be asleep in poll
  alignas(64) RankLine ranks[kMaxRanksPerHost];
};

/// A view of the block; copies see the same block.
class Control {
 public:
  Control() = default;
  /// `shared`: other processes map the block. `wakers` may be null where no rank sleeps in poll.
  Control(ControlBlock* block, bool shared, std::shared_ptr<const Wakers> wakers = nullptr)
      : block_(block), shared_(shared), wakers_(std::move(wakers)) {}

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

  /// For a sleeper in poll: from AddPoller to RemovePoller every Ring signals its waker.
  void AddPoller(int rank) { block_->pollers.fetch_or(Bit(rank)); }
  void RemovePoller(int rank) { block_->pollers.fetch_and(~Bit(rank)); }

  /// Whether the rank lives on this host. (A block that nobody has filled in has all ranks.)
  bool has(int rank) const {
    return block_->num_ranks == 0 ||
           (rank >= block_->first_rank && rank < block_->first_rank + block_->num_ranks);
  }
  /// Of a rank of this host.
  RankLine& line(int rank) const { return block_->ranks[rank - block_->first_rank]; }
  /// The rank's bit in a word of pollers.
  uint64_t Bit(int rank) const { return uint64_t{1} << (rank - block_->first_rank); }
  const Wakers* wakers() const { return wakers_.get(); }

 private:
  ControlBlock* block_ = nullptr;
  bool shared_ = false;
  std::shared_ptr<const Wakers> wakers_;
};

}  // namespace cadre::fabric
