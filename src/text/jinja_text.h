#pragma once
// Python's str operations on UTF-8. Positions are bytes unless a name says code points. Damaged UTF-8 is
// never read past its end: a byte that starts no whole character counts as one.
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace cadre::jinja {

/// Bytes of the character at `pos` (1 to 4), never past the end.
size_t CharSize(std::string_view s, size_t pos);
/// The character at `pos`; U+FFFD if it is damaged. `size` gets its bytes.
char32_t CharAt(std::string_view s, size_t pos, size_t* size);
/// Where the character that ends at `end` begins.
size_t CharBefore(std::string_view s, size_t end);
void AppendChar(std::string& out, char32_t c);
/// Offset of the first byte that is not UTF-8, or npos.
size_t FindInvalidUtf8(std::string_view s);

int64_t CountChars(std::string_view s);
/// Byte offset of the code point `n`, or the length if there are fewer.
size_t ByteOffset(std::string_view s, int64_t n);

bool IsSpace(char32_t c);
bool IsLineBreak(char32_t c);
bool IsAlpha(char32_t c);
bool IsDecimal(char32_t c);
bool IsDigit(char32_t c);
bool IsNumeric(char32_t c);
bool IsLower(char32_t c);
bool IsUpper(char32_t c);
bool IsTitle(char32_t c);
bool IsPrintable(char32_t c);
bool IsIdentifierStart(char32_t c);
bool IsIdentifierPart(char32_t c);

std::string Upper(std::string_view s);
std::string Lower(std::string_view s);
std::string Title(std::string_view s);       ///< str.title
std::string Capitalize(std::string_view s);  ///< str.capitalize
std::string SwapCase(std::string_view s);
std::string CaseFold(std::string_view s);

/// str.strip: whitespace, or any of the characters of `chars` when it is not nullptr.
std::string_view Strip(std::string_view s, const std::string_view* chars, bool left, bool right);

/// Where `needle` begins at or after `from`; npos if nowhere. Linear in both.
size_t Find(std::string_view s, std::string_view needle, size_t from = 0);
/// Where its last occurrence begins. Linear in both.
size_t FindLast(std::string_view s, std::string_view needle);

/// Gets the parts one after the other; may throw to end a split.
using Emit = std::function<void(std::string_view)>;
/// str.split and str.rsplit (which emits from the right end). A negative limit is none. The separator is not
/// empty.
void SplitWhitespace(std::string_view s, int64_t limit, bool from_right, const Emit& emit);
void SplitOn(std::string_view s, std::string_view separator, int64_t limit, bool from_right,
             const Emit& emit);
void SplitLines(std::string_view s, bool keep_ends, const Emit& emit);

/// repr(str). Stops when `out` has passed `max_bytes`.
void AppendStrRepr(std::string& out, std::string_view s, size_t max_bytes);

}  // namespace cadre::jinja
