#include "text/byte_level.h"

#include "text/utf8.h"

namespace cadre::text {
namespace {

constexpr size_t kLetterEnd = 0x144;

struct Tables {
  std::array<char16_t, 256> letters{};
  std::array<int16_t, kLetterEnd> bytes{};

  Tables() {
    bytes.fill(-1);
    char16_t next = 0x100;
    for (size_t b = 0; b < 256; ++b) {
      const bool is_printable = (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
      letters[b] = is_printable ? static_cast<char16_t>(b) : next++;
      bytes[letters[b]] = static_cast<int16_t>(b);
    }
  }
};

const Tables& TheTables() {
  static const Tables tables;
  return tables;
}

}  // namespace

const std::array<char16_t, 256>& ByteLetters() {
  return TheTables().letters;
}

int ByteOfLetter(char32_t letter) {
  return letter < kLetterEnd ? TheTables().bytes[letter] : -1;
}

std::string BytesToLetters(std::string_view bytes) {
  std::string letters;
  letters.reserve(bytes.size() * 2);
  for (const char b : bytes) AppendUtf8(letters, ByteLetters()[static_cast<unsigned char>(b)]);
  return letters;
}

bool LettersToBytes(std::string_view letters, std::string& bytes) {
  const size_t before = bytes.size();
  for (size_t pos = 0; pos < letters.size();) {
    const int byte = ByteOfLetter(NextCodePoint(letters, pos));
    if (byte < 0) {
      bytes.resize(before);
      return false;
    }
    bytes += static_cast<char>(byte);
  }
  return true;
}

}  // namespace cadre::text
