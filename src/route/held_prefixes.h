#pragma once
// What one rank of a worker holds, as it has said itself (GET /prefix_digest), and what it will hold: the
// prompts that are on their way there, and those that it has begun to answer since.
//
// A list is heard once, and then changes. Each question carries a number; what is noted after a question was
// asked may be missing in its answer and stays until the next one's. A prompt on its way counts as held
// already: a rank computes them in turn, so the next one finds it.
#include <cstdint>
#include <mutex>
#include <span>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "base/error.h"
#include "base/json.h"

namespace cadre::route {

/// Any thread.
class HeldPrefixes {
 public:
  /// Names kept at most; a rank that holds more is not followed (Match says -1).
  static constexpr size_t kMaxNames = size_t{1} << 20;

  /// The next question's query, behind "/prefix_digest?"; it has been asked from now on.
  std::string NextQuery(int rank);
  struct Heard {
    bool more = false;     ///< ask again at once
    bool changed = false;  ///< something was told
    int num_ranks = 1;
  };
  /// Takes the answer in. Errors: kDataLoss, and nothing has changed but that the list begins anew;
  /// kUnsupported for another way of naming.
  Result<Heard> Take(std::string_view body);
  /// A prompt with these names is on its way to the rank.
  void Promise(std::span<const uint64_t> names);
  /// The promise is over. `kept`: the rank has computed the prompt.
  void Settle(std::span<const uint64_t> names, bool kept);
  /// The rank has computed a prompt with these names.
  void Note(std::span<const uint64_t> names);
  /// Begins anew.
  void Forget();

  /// Tokens in a block; 0: not known yet.
  int32_t block_size() const;
  /// Leading names that are held; -1: the rank's list is not whole yet. Cost: one look-up each.
  int64_t Match(std::span<const uint64_t> names) const;
  size_t size() const;

 private:
  struct Answer;
  static Result<Answer> Parse(std::string_view body);

  mutable std::mutex mutex_;
  std::unordered_set<uint64_t> held_;               // guarded by mutex_, as all below
  std::unordered_map<uint64_t, int64_t> noted_;     // name -> the last question asked before it
  std::unordered_map<uint64_t, int32_t> promised_;  // name -> prompts on their way
  uint64_t epoch_ = 0;
  int64_t version_ = 0, base_ = 0, asked_ = 0;
  int32_t block_size_ = 0;
  bool whole_ = false, too_many_ = false, caches_ = true;
};

}  // namespace cadre::route
