#pragma once
// Unicode grows: code points that the reference library's regular expressions know as letters, marks,
// symbols, and the libraries of this system do not know yet. Without them an emoji of 2023 would cut a text
// in other places.
#include <string>
#include <string_view>

namespace cadre::text {

/// Ranges of new code points of a property ("L", "Lu", "Alphabetic", "sc:Han"), as they stand in a class of
/// PCRE2; empty if there are none.
std::string AddedRanges(std::string_view property);

/// True if `cp` was added to a property.
bool IsAddedTo(char32_t cp, std::string_view property);

/// True if `text` (valid UTF-8) holds a code point that was added to any of them. Cost: about a nanosecond a
/// byte.
bool HasAddedPoint(std::string_view text);

}  // namespace cadre::text
