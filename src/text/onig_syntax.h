#pragma once
// Rewrites a pattern from Oniguruma's Ruby syntax into PCRE2's, with UTF, UCP and MULTILINE set.
// What differs between the two, and occurs in published tokenizers or could:
//   \s \w \b \h \v     other sets of code points (PCRE2's \s has U+180E, its \w lacks marks)
//   [a&&[^b]] [a[b]]   intersection and nesting of classes: PCRE2 10.42 has neither; become look-aheads and
//   unions x{1,3}+            Ruby: a repeated repeat; PCRE2: possessive x{3}?              Ruby: optional;
//   PCRE2: lazy x{,3}              Ruby: {0,3}; PCRE2: five characters
//   (?m) a(?i)b|c      Ruby: dot matches newline; the option encloses the alternatives behind it
//   \p{Alpha} ...      names that PCRE2 does not know
#include <string>
#include <string_view>

#include "base/error.h"

namespace cadre::text {

/// `with_additions` spells out the code points that PCRE2's Unicode lacks (unicode_additions.h); without them
/// the pattern is quicker. Errors: kUnsupported or kInvalidArgument with the byte offset in `pattern` (valid
/// UTF-8). Cost: linear.
Result<std::string> OnigToPcre2(std::string_view pattern, bool with_additions);

}  // namespace cadre::text
