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

/// What a worker is believed to hold. The router's own estimate is SentPrefixes; digests that workers publish
/// themselves are to be another.
class PrefixView {
 public:
  virtual ~PrefixView() = default;
  /// Number of leading blocks of `chain` that are held.
  virtual size_t Match(std::span<const uint64_t> chain) const = 0;
  virtual size_t size() const = 0;  ///< blocks held
};

/// What was sent there, least recently used out first.
class SentPrefixes final : public PrefixView {
 public:
  explicit SentPrefixes(size_t max_blocks) : max_blocks_(max_blocks) {}
  size_t Match(std::span<const uint64_t> chain) const override;  ///< cost: log(chain)
  size_t size() const override { return places_.size(); }
  void Insert(std::span<const uint64_t> chain);  ///< cost: linear

 private:
  const size_t max_blocks_;
  std::list<uint64_t> recent_;  // the last used first
  std::unordered_map<uint64_t, std::list<uint64_t>::iterator> places_;
};

}  // namespace cadre::route
