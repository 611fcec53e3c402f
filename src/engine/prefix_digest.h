#pragma once
// What a rank's prefix cache holds, for those who choose ranks: names of prefixes of whole blocks, and what
// has changed since they last asked.
//
// Each change has a number, its version. Who asks says up to which version he knows; he hears the changes
// behind it, oldest first, as many as he wants at a time. Names that are held now are found by their version
// however long ago they came; of those that are gone the latest kMaxGone are remembered. Who knows less than
// that, or another life of this rank (its epoch), begins anew. What was gone when he began (his base) he
// never heard of, so a long first list may take its time (until kMaxGone more are gone).
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "base/error.h"
#include "kv/block_pool.h"

namespace cadre::engine {

struct PrefixQuery {
  int rank = 0;
  uint64_t epoch = 0;    ///< of what the caller knows; 0: nothing
  int64_t since = 0;     ///< up to which version
  int64_t base = 0;      ///< of the answer that was a reset
  int64_t limit = 4096;  ///< names at most in one answer
};

struct PrefixChanges {
  uint64_t epoch = 0;                    ///< drawn at the rank's start
  int64_t version = 0;                   ///< up to which this goes
  int64_t base = 0;                      ///< to be given back with the next questions
  bool reset = false;                    ///< forget all that you know first
  bool more = false;                     ///< ask again from `version` on
  int32_t block_size = 0;                ///< tokens
  int32_t num_ranks = 1;                 ///< that can be asked
  bool caches = true;                    ///< false: nothing will ever be held
  std::vector<uint64_t> removed, added;  ///< to be applied in this order
};

using PrefixDone = std::function<void(Result<PrefixChanges>)>;

/// Told by the engine thread, asked by any.
class PrefixDigest final : public kv::PrefixListener {
 public:
  static constexpr size_t kMaxGone = 1 << 16;

  PrefixDigest(int32_t block_size, bool caches, size_t max_gone = kMaxGone);

  void Published(uint64_t name) override;
  void Forgotten(uint64_t name) override;
  /// Cost: linear in the answer.
  PrefixChanges Since(const PrefixQuery& query) const;

 private:
  struct Held {
    int64_t version = 0;
    int32_t count = 0;  // blocks of this name: where a beginning was evicted, its end may come twice
  };

  const uint64_t epoch_;
  const int32_t block_size_;
  const bool caches_;
  const size_t max_gone_;
  mutable std::mutex mutex_;
  int64_t version_ = 0;  // of the last change; guarded by mutex_, as all below
  std::unordered_map<uint64_t, Held> held_;
  std::map<int64_t, uint64_t> order_;              // the same by version
  std::deque<std::pair<int64_t, uint64_t>> gone_;  // by version
  int64_t forgotten_ = 0;                          // up to here not all that is gone is in gone_
};

}  // namespace cadre::engine
