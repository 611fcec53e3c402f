#pragma once
// Finds usage.prompt_tokens_details.cached_tokens in an answer that passes by, without parsing it.
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace cadre::route {

/// Takes an answer's bytes in any pieces. What a model says cannot be mistaken for the member: quotes within
/// JSON strings are escaped.
class CachedTokensScan {
 public:
  void Push(std::string_view bytes);
  /// Of the last usage that was seen.
  std::optional<int64_t> value() const { return value_; }

 private:
  std::string rest_;  // of earlier bytes, as long as a member that is cut in two may be
  std::optional<int64_t> value_;
};

}  // namespace cadre::route
