#pragma once
// The sets of code points that Oniguruma's escapes and names stand for, spelled for PCRE2: text between [ and
// ]. `with_additions`: see onig_syntax.h.
#include <string>
#include <string_view>

namespace cadre::text {

inline constexpr std::string_view kSpaceSet = "\\t-\\r\\x{85}\\p{Z}";
inline constexpr std::string_view kHexSet = "0-9a-fA-F";

/// \w; it has more outside of a class than in one.
std::string WordSet(bool in_class, bool with_additions);
/// \p{name}: a category, a binary property or a script. The name is not checked.
std::string PropertySet(std::string_view name, bool with_additions);
/// [:name:]; empty if there is no such class.
std::string PosixSet(std::string_view name, bool with_additions);

}  // namespace cadre::text
