#pragma once
// UTF-8 by hand: the tokenizer and the detokenizer must agree, byte for byte, on what is a code point and on
// how many U+FFFD stand for damaged bytes. Damaged text is repaired by the rule of the Unicode standard,
// section 3.9
// ("substitution of maximal subparts"), which Rust, Python and browsers follow as well.
#include <cstddef>
#include <string>
#include <string_view>

namespace cadre::text {

inline constexpr std::string_view kReplacementText = "\xEF\xBF\xBD";  // U+FFFD

enum class Utf8State {
  kWhole,    ///< the first `length` bytes are one code point
  kInvalid,  ///< the first `length` bytes can never become a code point: one U+FFFD stands for them
  kPartial,  ///< all `length` bytes that are left are the beginning of a code point
};
struct Utf8Unit {
  Utf8State state;
  size_t length;
};

/// Looks at the beginning of `text`, which must not be empty.
Utf8Unit ScanUtf8(std::string_view text);

/// Bytes of the code point that begins with `lead`, in valid UTF-8.
inline size_t Utf8Length(char lead) {
  const unsigned char c = static_cast<unsigned char>(lead);
  return c < 0x80 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
}

/// True for a byte that continues a code point.
inline bool IsUtf8Tail(char byte) {
  return (static_cast<unsigned char>(byte) & 0xC0) == 0x80;
}

/// Reads the code point at `pos` of valid UTF-8 and moves `pos` behind it.
inline char32_t NextCodePoint(std::string_view text, size_t& pos) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[pos + i]); };
  const size_t length = Utf8Length(text[pos]);
  char32_t cp = byte(0);
  if (length == 2) {
    cp = (cp & 0x1F) << 6 | (byte(1) & 0x3F);
  } else if (length == 3) {
    cp = (cp & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F);
  } else if (length == 4) {
    cp = (cp & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F);
  }
  pos += length;
  return cp;
}

/// True if `text` (valid UTF-8) is one code point.
bool IsOnePoint(std::string_view text);

void AppendUtf8(std::string& out, char32_t cp);

/// Length of the longest prefix that is valid UTF-8 (bytes). Plain ASCII goes eight bytes a step.
size_t ValidUtf8Prefix(std::string_view text);

/// Turns a stream of bytes into valid UTF-8: whole code points at once, an unfinished one when it is
/// finished.
class Utf8Repair {
 public:
  void Push(std::string_view bytes, std::string& out);
  /// The stream ended: an unfinished code point becomes one U+FFFD.
  void Finish(std::string& out);

 private:
  std::string partial_;  // at most three bytes
};

/// The text with U+FFFD for what is no UTF-8.
std::string RepairUtf8(std::string_view text);

}  // namespace cadre::text
