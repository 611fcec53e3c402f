#include "session/stop_strings.h"

#include <algorithm>

namespace cadre::session {

StopStrings::StopStrings(std::vector<std::string> strings, bool include) : include_(include) {
  for (std::string& text : strings) {
    std::vector<uint32_t> fallback(text.size(), 0);
    for (size_t i = 1, k = 0; i < text.size(); ++i) {
      while (k > 0 && text[i] != text[k]) k = fallback[k - 1];
      if (text[i] == text[k]) ++k;
      fallback[i] = static_cast<uint32_t>(k);
    }
    stops_.push_back({std::move(text), std::move(fallback), 0});
  }
}

std::optional<size_t> StopStrings::Push(std::string_view piece, std::string& out) {
  const size_t held_before = held_.size();
  held_ += piece;
  for (size_t i = held_before; i < held_.size(); ++i) {
    for (size_t which = 0; which < stops_.size(); ++which) {
      Stop& stop = stops_[which];
      while (stop.matched > 0 && stop.text[stop.matched] != held_[i])
        stop.matched = stop.fallback[stop.matched - 1];
      if (stop.text[stop.matched] == held_[i]) ++stop.matched;
      if (stop.matched < stop.text.size()) continue;
      out.append(held_, 0, i + 1 - (include_ ? 0 : stop.text.size()));
      held_.clear();
      return which;
    }
  }
  size_t keep = 0;
  for (const Stop& stop : stops_) keep = std::max(keep, stop.matched);
  out.append(held_, 0, held_.size() - keep);
  held_.erase(0, held_.size() - keep);
  return std::nullopt;
}

void StopStrings::Pass(std::string_view piece, std::string& out) {
  Flush(out);
  out += piece;
  for (Stop& stop : stops_) stop.matched = 0;
}

void StopStrings::Flush(std::string& out) {
  out += held_;
  held_.clear();
}

}  // namespace cadre::session
