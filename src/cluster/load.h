#pragma once
// Which rank a request goes to. Pure: no clock, no threads.
//
// Work is counted in prompt tokens: what a request's prompt still needs, and four for each token that it may
// still generate (a step each, where a step of prompts has many tokens), of which at most 256 count, because
// nobody knows where an answer ends. A request goes where the work, its own included, is least. A rank that
// holds the first tokens of the prompt need not compute them: they are taken off its own work there. So a
// rank is preferred for its prefix until its other work is more than the prefix saves; and not at all while
// it has more than half again as many requests, and eight, as the rank with the fewest: a popular prefix must
// not leave the others idle, and costs each of them one computation.
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "engine/request.h"

namespace cadre::cluster {

constexpr int64_t kWorkPerOutput = 4;
constexpr int64_t kMostOutput = 256;

/// The work of tokens that a request may still generate.
int64_t OutputWork(int64_t tokens_left);

struct Candidate {
  int64_t requests = 0;  ///< there already
  int64_t work = 0;      ///< theirs
  int64_t held = 0;      ///< first tokens of the new prompt that the rank is thought to hold
};

/// The index of the best; among equals the first from `turn` on. At least one.
size_t ChooseRank(std::span<const Candidate> ranks, int64_t prompt_tokens, uint64_t turn);

/// Names blocks of tokens by all that stands before them: equal for equal prefixes (with the same salt), and
/// never 0 (all are odd). Add tokens in any portions; blocks come out when they are full.
class BlockNames {
 public:
  BlockNames(int block_size, std::string_view salt);
  /// Appends the names of the blocks that `tokens` complete.
  void Add(std::span<const int32_t> tokens, std::vector<uint64_t>& names);

 private:
  int block_size_;
  int filled_ = 0;
  uint64_t hash_;
};

}  // namespace cadre::cluster
