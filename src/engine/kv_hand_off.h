#pragma once
// The engine's side of KV hand-off: which sequences an agent (handoff/agent.h) is told of, and who holds
// their blocks meanwhile.
//
// A sequence's blocks are its own until one of two things happens:
//   held      its request has ended (or lost its blocks to somebody) and another engine may still read them:
//             they belong to the lease until the agent says that it is over;
//   let go    its request has ended while blocks were being fetched into them: they belong to the fetch until
//             the agent says that nothing will be written any more.
// Invariant: a block that an agent may read or write has a holder in the pool, which is a sequence or one of
// the two lists here. Nobody else releases it.
//
// Of the engine thread.
#include <functional>
#include <map>
#include <optional>

#include "engine/kv_transfer.h"
#include "engine/sequence.h"
#include "handoff/agent.h"
#include "kv/block_pool.h"

namespace cadre::engine {

struct KvHandOffOptions {
  Duration lease = std::chrono::seconds(30);
  /// A fetch that has not ended by then has failed.
  Duration fetch_timeout = std::chrono::seconds(30);
  Duration push_timeout = std::chrono::seconds(480);  ///< the same where the source still computes
  bool recompute = true;  ///< after a failed fetch; false: the request fails
  int32_t tp_size = 1;
  std::string name = "this engine";  ///< for logs
};

class KvHandOff {
 public:
  /// Agent and pool must outlive it.
  KvHandOff(handoff::Agent& agent, kv::BlockPool& pool, KvHandOffOptions options);

  const KvHandOffOptions& options() const { return options_; }

  // The source. All but the first are for sequences with hold_open.

  /// Tells the agent that a sequence begins whose blocks others will want. Sets hold_open.
  void Open(Sequence& sequence);
  /// The sequence has ended well: its blocks become the lease's.
  void Hold(Sequence& sequence);
  /// The sequence gives its blocks up. Those who wait hear `why`; the blocks are free once nobody reads them.
  void Drop(Sequence& sequence, const Error& why);
  /// What to tell of a sequence that has ended well and was to be held, before or after Hold.
  HeldKv Describe(const Sequence& sequence) const;

  // The target.

  /// Whether the sequence, which has found `num_computed` tokens here, still wants blocks from elsewhere. If
  /// not, and it wanted some, their source is told.
  bool WantsFetch(Sequence& sequence);
  /// Starts to fetch into the sequence's blocks.
  void Fetch(Sequence& sequence);
  /// The sequence ends while it waits: its blocks become the fetch's.
  void LetGo(Sequence& sequence);
  /// The request ends before it has begun, or goes on without: its source need not wait.
  void Reject(Sequence& sequence);
  /// It still waits for room here: its source should wait too. Call as often as you like.
  void Touch(Sequence& sequence);
  static constexpr Duration kTouchInterval = std::chrono::seconds(3);

  struct Fetched {
    SeqId id;
    int64_t num_tokens = 0;  ///< of its beginning that are there now, those found here included
    Status status;
  };
  /// Releases the blocks that nobody needs any more; what has been fetched since the last call.
  std::vector<Fetched> Poll();

  KvTransferStats Stats() const;

 private:
  struct Fetching {
    SeqId sequence;               // invalid: let go
    std::vector<int32_t> blocks;  // where let go
    std::string request_id, source;
    int64_t first_token = 0, num_tokens = 0;
  };
  std::string HoldIdOf(Sequence& sequence);
  void TakeBlocks(Sequence& sequence, std::vector<int32_t>& to) const;
  void Release(std::vector<int32_t>& blocks);

  handoff::Agent& agent_;
  kv::BlockPool& pool_;
  const KvHandOffOptions options_;
  struct Held {
    std::vector<int32_t> blocks;
    bool leased = false;  // else dropped
  };
  std::map<std::string, Held> held_;  // by hold id; until the agent's TakeEnded
  std::map<int64_t, Fetching> fetching_;              // by FetchId
  int64_t next_fetch_ = 0, num_opened_ = 0;
  KvTransferStats stats_;
};

}  // namespace cadre::engine
