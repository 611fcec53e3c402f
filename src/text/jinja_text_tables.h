#pragma once
// Tables that jinja_text.cc needs beside utf8proc's.
namespace cadre::jinja {

/// Upper and title case of a character that becomes more than one; 0 ends the shorter ones.
struct SpecialCase {
  char32_t from;
  char32_t upper[3];
  char32_t title[3];
};

const SpecialCase* FindSpecialCase(char32_t c);  ///< nullptr if c maps to one character
bool IsOtherDigit(char32_t c);                   ///< str.isdigit, but not of category Nd
bool IsOtherNumeric(char32_t c);                 ///< str.isnumeric, but of no category N*
bool IsOtherLower(char32_t c);                   ///< str.islower, but not of category Ll
bool IsOtherUpper(char32_t c);                   ///< str.isupper, but not of category Lu

}  // namespace cadre::jinja
