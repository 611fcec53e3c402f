#pragma once
// Names of prompts' beginnings: equal for equal tokens after equal salts, and else different but for one pair
// in 2^64. Ranks, fronts and routers compute them alike, so they can tell each other what they hold without
// telling tokens. Not against adversaries: a name leads a request to a rank, never to a block.
#include <cstdint>
#include <span>
#include <string_view>

namespace cadre {

/// splitmix64's last step: every bit of the input reaches every bit of the output.
inline uint64_t MixBits(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
  return x ^ (x >> 31);
}

/// The name of the empty beginning under a cache salt.
inline uint64_t PrefixRoot(std::string_view salt) {
  uint64_t name = salt.size();
  for (const char c : salt) name = MixBits(name + static_cast<unsigned char>(c) + 1);
  return name;
}

/// The name of the beginning `before` with `tokens` behind it, in whatever portions they come.
inline uint64_t ExtendPrefix(uint64_t before, std::span<const int32_t> tokens) {
  for (const int32_t token : tokens)
    before = MixBits(before * 0x9E3779B97F4A7C15 + static_cast<uint32_t>(token) + 1);
  return before;
}

}  // namespace cadre
