#pragma once
// A prompt as the tokens that its model sees.
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/prefix_hash.h"

namespace cadre::route {

class PromptTokens {
 public:
  PromptTokens(std::vector<int32_t> ids, std::string_view cache_salt)
      : ids_(std::move(ids)), root_(PrefixRoot(cache_salt)) {}

  int64_t size() const { return static_cast<int64_t>(ids_.size()); }
  /// The names of its beginnings of whole blocks that a cache may answer for: the last token is always
  /// computed. Kept for the next call. One thread at a time.
  const std::vector<uint64_t>& Names(int32_t block_size) const {
    auto [place, is_new] = names_.try_emplace(block_size);
    std::vector<uint64_t>& names = place->second;
    if (!is_new) return names;
    const auto step = static_cast<size_t>(block_size);
    uint64_t name = root_;
    for (size_t end = step; end < ids_.size(); end += step) {
      name = ExtendPrefix(name, std::span(ids_).subspan(end - step, step));
      names.push_back(name);
    }
    return names;
  }

 private:
  const std::vector<int32_t> ids_;
  const uint64_t root_;
  mutable std::map<int32_t, std::vector<uint64_t>> names_;
};

}  // namespace cadre::route
