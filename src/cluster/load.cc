#include "cluster/load.h"

#include <algorithm>

#include "base/prefix_hash.h"

namespace cadre::cluster {
namespace {

constexpr int64_t kFreeLead = 8;  // requests

}  // namespace

int64_t OutputWork(int64_t tokens_left) {
  return kWorkPerOutput * std::clamp<int64_t>(tokens_left, 0, kMostOutput);
}

size_t ChooseRank(std::span<const Candidate> ranks, int64_t prompt_tokens, uint64_t turn) {
  const int64_t fewest = std::ranges::min_element(ranks, {}, &Candidate::requests)->requests;
  const int64_t most_with_bonus = fewest + fewest / 2 + kFreeLead;
  const auto cost = [&](const Candidate& rank) {
    const int64_t held = rank.requests <= most_with_bonus ? std::min(rank.held, prompt_tokens) : 0;
    return std::pair(rank.work + prompt_tokens - held, rank.requests);
  };
  size_t best = turn % ranks.size();
  for (size_t i = 1; i < ranks.size(); ++i) {
    const size_t candidate = (turn + i) % ranks.size();
    if (cost(ranks[candidate]) < cost(ranks[best])) best = candidate;
  }
  return best;
}

BlockNames::BlockNames(int block_size, std::string_view salt)
    : block_size_(block_size), hash_(PrefixRoot(salt)) {}

void BlockNames::Add(std::span<const int32_t> tokens, std::vector<uint64_t>& names) {
  for (const int32_t token : tokens) {
    hash_ = ExtendPrefix(hash_, {&token, 1});
    if (++filled_ < block_size_) continue;
    filled_ = 0;
    names.push_back(hash_ | 1);  // 0 is an empty place in the board's tables
  }
}

}  // namespace cadre::cluster
