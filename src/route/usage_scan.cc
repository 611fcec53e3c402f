#include "route/usage_scan.h"

#include <algorithm>

namespace cadre::route {
namespace {

constexpr std::string_view kMember = "\"cached_tokens\":";
constexpr size_t kMaxDigits = 12;
constexpr size_t kKept = kMember.size() + 4 + kMaxDigits;

// The number at the beginning, if what ends it is there too.
std::optional<int64_t> NumberAt(std::string_view text) {
  while (text.starts_with(' ')) text.remove_prefix(1);
  int64_t value = 0;
  size_t digits = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return digits > 0 ? std::optional(value) : std::nullopt;
    if (++digits > kMaxDigits) return std::nullopt;
    value = value * 10 + (c - '0');
  }
  return std::nullopt;
}

}  // namespace

void CachedTokensScan::Push(std::string_view bytes) {
  // Few pieces hold it: most are looked through once, and not copied.
  const auto scan = [this](std::string_view text) {
    const size_t at = text.rfind(kMember);
    if (at == text.npos) return;
    if (const auto value = NumberAt(text.substr(at + kMember.size()))) value_ = value;
  };
  rest_ += bytes.substr(0, std::min(bytes.size(), kKept));
  scan(rest_);
  if (bytes.size() > kKept) {
    scan(bytes);
    rest_ = bytes.substr(bytes.size() - kKept);
  } else if (rest_.size() > kKept) {
    rest_.erase(0, rest_.size() - kKept);
  }
}

}  // namespace cadre::route
