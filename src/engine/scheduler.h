#pragma once
// Which sequences run in the next step, and with how many tokens each.
//
// There are no phases: a sequence has tokens, and some of them are not computed yet. Each step spends a
// budget of tokens, first on running sequences (one token each while they generate, a chunk while their
// prompt is computed), then on waiting ones. When blocks run out, the sequence that would be served last
// gives its blocks back and waits again; it is computed anew later (its whole blocks are likely still
// cached).
//
// A sequence whose prompt has been computed elsewhere gets all its blocks first and then waits beside the
// others until they are filled (kv_hand_off.h). What has its blocks comes before what has none: it could
// otherwise wait for blocks that it holds itself.
//
// Owned by the engine thread.
#include <cstdint>
#include <deque>
#include <limits>
#include <memory>
#include <optional>
#include <vector>

#include "engine/kv_hand_off.h"
#include "engine/sequence.h"
#include "kv/block_pool.h"

namespace cadre::engine {

enum class SchedulingPolicy { kFcfs, kPriority };

struct SchedulerOptions {
  int32_t max_num_seqs = 128;
  int32_t max_num_batched_tokens = 2048;
  int32_t long_prefill_token_threshold =
      0;  ///< at most so many prompt tokens of one sequence a step; 0: no limit
  bool enable_chunked_prefill = true;
  bool enable_prefix_caching = true;
  SchedulingPolicy policy = SchedulingPolicy::kFcfs;
};

/// A sequence's share of a step: tokens [num_computed, num_computed + num_tokens).
struct ScheduledSequence {
  Sequence* sequence = nullptr;
  int32_t num_tokens = 0;
  bool completes() const { return sequence->num_computed + num_tokens == sequence->num_tokens(); }
};

struct SchedulerCounters {
  int64_t num_preemptions = 0;
  int64_t prefix_cache_queries = 0;  ///< prompt tokens looked up
  int64_t prefix_cache_hits = 0;     ///< of them found
};

class Scheduler {
 public:
  Scheduler(SchedulerOptions options, int64_t num_blocks, int32_t block_size);

  /// From now on sequences may ask for it; it must outlive the scheduler's use.
  void Attach(KvHandOff& hand_off) { hand_off_ = &hand_off; }

  /// Takes a sequence in; it waits.
  void Add(std::unique_ptr<Sequence> sequence);

  /// Plans one step of at most `token_budget` tokens (and max_num_batched_tokens). Blocks for the planned
  /// tokens are allocated. Empty if nothing can run.
  std::vector<ScheduledSequence> Schedule(int32_t token_budget);

  /// The planned tokens have been computed: counts them and publishes whole blocks to the prefix cache.
  void Computed(const ScheduledSequence& scheduled);

  /// The blocks of a sequence are as filled as they will get: it goes on from there.
  void Fetched(SeqId id, int64_t num_tokens);

  /// Takes a sequence out, wherever it is, and releases its blocks; others may still hold them. Null if there
  /// is none with this id.
  std::unique_ptr<Sequence> Remove(SeqId id);

  /// Sequences with ids from `border` on stay waiting until AdmitAll.
  void AdmitBelow(SeqId border) { border_ = border; }
  void AdmitAll() { border_ = kNoBorder; }

  /// Running sequences give their blocks back and wait, to be computed anew, and no cached prefix is found
  /// any more: what lies in the cache belongs to other weights.
  void ForgetComputed();
  /// The same for the sequences of one adapter, whose weights are others from now on. Their version keeps new
  /// prefixes apart from old ones.
  void ForgetComputedOf(int32_t adapter);
  /// Where the others keep what they have computed under weights that were replaced: those whose blocks
  /// another engine may read (`adapter` empty: of all) begin anew all the same, for it takes them for one or
  /// the other.
  void ForgetOffered(std::optional<int32_t> adapter);

  /// Every sequence, running ones first; for cancellation sweeps and draining.
  std::vector<Sequence*> All() const;

  int64_t num_running() const { return static_cast<int64_t>(running_.size()); }
  int64_t num_waiting() const {
    return static_cast<int64_t>(waiting_.size() + fetching_.size() + fetched_.size());
  }
  bool empty() const { return running_.empty() && num_waiting() == 0; }
  const SchedulerCounters& counters() const { return counters_; }
  kv::BlockPool& pool() { return pool_; }
  const kv::BlockPool& pool() const { return pool_; }

 private:
  bool Fits(const Sequence& sequence) const;
  bool AllocateFor(Sequence& sequence, int64_t num_tokens);
  bool MakeRoom(size_t running_idx, int64_t num_tokens);
  void Preempt(size_t running_idx);
  void ReleaseBlocks(Sequence& sequence);
  template <typename Pred>
  void ForgetComputedIf(Pred forget);
  void AdoptPrefix(Sequence& sequence);
  void Publish(Sequence& sequence);
  bool BeginFetch(std::unique_ptr<Sequence>& waiting);
  void Admit(std::unique_ptr<Sequence> sequence, int32_t chunk, std::vector<ScheduledSequence>& plan);
  void ScheduleFetched(std::vector<ScheduledSequence>& plan, int32_t& budget);
  int32_t ChunkOf(const Sequence& sequence, int32_t budget) const;
  void ScheduleRunning(std::vector<ScheduledSequence>& plan, int32_t& budget);
  void ScheduleWaiting(std::vector<ScheduledSequence>& plan, int32_t& budget);
  bool ServedBefore(const Sequence& a, const Sequence& b) const;

  static constexpr SeqId kNoBorder{std::numeric_limits<int64_t>::max()};
  SeqId border_ = kNoBorder;
  SchedulerOptions options_;
  kv::BlockPool pool_;
  std::vector<std::unique_ptr<Sequence>> running_;   // in the order they are served
  std::deque<std::unique_ptr<Sequence>> waiting_;    // in the order they will be served
  std::vector<std::unique_ptr<Sequence>> fetching_;  // with all blocks of their prompts
  std::deque<std::unique_ptr<Sequence>> fetched_;    // the same, ready to run
  KvHandOff* hand_off_ = nullptr;                    // null: nobody may ask for it
  SchedulerCounters counters_;
};

}  // namespace cadre::engine
