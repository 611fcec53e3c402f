#pragma once
// The one door to fmt: every message for a person is made with Format().
#include <fmt/format.h>

#include <string>
#include <utility>

namespace cadre {

template <typename... Args>
std::string Format(fmt::format_string<Args...> pattern, Args&&... args) {
  return fmt::format(pattern, std::forward<Args>(args)...);
}

}  // namespace cadre
