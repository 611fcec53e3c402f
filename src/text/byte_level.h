#pragma once
// The alphabet of byte-level tokenizers: every byte has a printable letter, so that a vocabulary of bytes can
// be written as text. Printable Latin-1 stands for itself, the rest for U+0100 onwards, in order (GPT-2's
// encoder.py).
#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace cadre::text {

/// The letter of each byte; all lie below U+0144.
const std::array<char16_t, 256>& ByteLetters();
/// The byte of a letter, or -1.
int ByteOfLetter(char32_t letter);
/// Letters for the bytes of `bytes`, as UTF-8.
std::string BytesToLetters(std::string_view bytes);
/// The bytes that `letters` (valid UTF-8) stands for; false, with `bytes` untouched, if one of them is no
/// letter.
bool LettersToBytes(std::string_view letters, std::string& bytes);

}  // namespace cadre::text
