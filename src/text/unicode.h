#pragma once
// What the tokenizer needs to know about code points. unicode.cc is the only file that sees utf8proc.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace cadre::text {

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };

/// `text` (valid UTF-8) in a Unicode normal form. Cost: linear; NFC of text below U+0300 is a copy.
std::string ToNormalForm(std::string_view text, NormalForm form);

/// Lower case of one code point appended to `out` (U+0130 becomes two).
void AppendLowercase(std::string& out, char32_t cp);

bool IsWhitespace(char32_t cp);        ///< property White_Space
bool IsNumeric(char32_t cp);           ///< categories Nd, Nl, No
bool IsPunctuation(char32_t cp);       ///< categories P*
bool IsAsciiPunctuation(char32_t cp);  ///< !"#$%&'()*+,-./:;<=>?@[\]^_`{|}~
bool IsMark(char32_t cp);              ///< categories Mn, Mc, Me
bool IsNonspacingMark(char32_t cp);    ///< category Mn
bool IsOther(char32_t cp);             ///< categories Cc, Cf, Co

/// Ends of the grapheme clusters of `text` (valid UTF-8), as byte offsets, ascending.
std::vector<size_t> GraphemeEnds(std::string_view text);

}  // namespace cadre::text
