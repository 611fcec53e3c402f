#include "route/prefix.h"

#include <algorithm>
#include <cstring>

namespace cadre::route {
namespace {

// The finalizer of MurmurHash3 (public domain): every input bit reaches every output bit.
uint64_t Mix(uint64_t x) {
  x ^= x >> 33;
  x *= 0xff51afd7ed558ccdULL;
  x ^= x >> 33;
  x *= 0xc4ceb9fe1a85ec53ULL;
  return x ^ (x >> 33);
}

}  // namespace

uint64_t HashText(std::string_view text, uint64_t seed) {
  uint64_t hash = Mix(seed ^ (text.size() * 0x9e3779b97f4a7c15ULL));
  while (!text.empty()) {
    uint64_t word = 0;
    const size_t bytes = std::min<size_t>(8, text.size());
    std::memcpy(&word, text.data(), bytes);
    hash = Mix(hash * 0x9e3779b97f4a7c15ULL + word);
    text.remove_prefix(bytes);
  }
  return hash;
}

std::vector<uint64_t> PrefixChain(std::string_view text, uint64_t seed) {
  std::vector<uint64_t> chain;
  chain.reserve(std::min(text.size() / kPrefixBlockBytes, kMaxPrefixBlocks));
  uint64_t hash = Mix(seed);
  while (text.size() >= kPrefixBlockBytes && chain.size() < kMaxPrefixBlocks) {
    hash = HashText(text.substr(0, kPrefixBlockBytes), hash);
    chain.push_back(hash);
    text.remove_prefix(kPrefixBlockBytes);
  }
  return chain;
}

size_t SentPrefixes::Match(std::span<const uint64_t> chain) const {
  size_t held = 0,
         missing = chain.size() + 1;  // numbers of leading blocks: known to be held, known not to be
  while (held + 1 < missing) {
    const size_t middle = (held + missing) / 2;
    (places_.contains(chain[middle - 1]) ? held : missing) = middle;
  }
  return held;
}

void SentPrefixes::Insert(std::span<const uint64_t> chain) {
  chain = chain.first(std::min(chain.size(), max_blocks_));
  // From the end to the beginning: the beginning is the last used and goes last.
  for (size_t i = chain.size(); i-- > 0;) {
    const auto [place, is_new] = places_.try_emplace(chain[i]);
    if (is_new) {
      recent_.push_front(chain[i]);
      place->second = recent_.begin();
    } else {
      recent_.splice(recent_.begin(), recent_, place->second);
    }
  }
  while (places_.size() > max_blocks_) {
    places_.erase(recent_.back());
    recent_.pop_back();
  }
}

}  // namespace cadre::route
