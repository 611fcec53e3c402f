#pragma once
// Which prompts a worker has seen, as digests of their prefixes.
//
// A prompt is cut into blocks of kPrefixBlockBytes; a block's digest covers everything before it as well, so
// equal digests mean equal prefixes. A set of digests is as good as a tree for the one question that is
// asked: how many leading blocks of this prompt are there? Sets drop what was used longest ago, ends before
// beginnings, so they stay closed under prefixes and the answer is found by bisection.
#include <cstdint>
#include <list>
#include <span>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace cadre::route {

constexpr size_t kPrefixBlockBytes = 64;
/// Of longer prompts only so much decides.
constexpr size_t kMaxPrefixBlocks = 8192;

/// The digests of the whole blocks of `text`; prompts under another `seed` (a cache salt, a model) share
/// none.
std::vector<uint64_t> PrefixChain(std::string_view text, uint64_t seed);

/// 64 bits of a string; not against adversaries: who can aim at a collision only misplaces his own requests.
uint64_t HashText(std::string_view text, uint64_t seed = 0);

/// What was sent to a worker, least recently used out first: a guess of what it holds, for workers that do
/// not say it themselves (held_prefixes.h).
class SentPrefixes {
 public:
  explicit SentPrefixes(size_t max_blocks) : max_blocks_(max_blocks) {}
  /// Number of leading blocks of `chain` that are held. Cost: log(chain).
  size_t Match(std::span<const uint64_t> chain) const;
  size_t size() const { return places_.size(); }  ///< blocks held
  void Insert(std::span<const uint64_t> chain);   ///< cost: linear

 private:
  const size_t max_blocks_;
  std::list<uint64_t> recent_;  // the last used first
  std::unordered_map<uint64_t, std::list<uint64_t>::iterator> places_;
};

}  // namespace cadre::route
