#include "text/jinja_text.h"

#include <string.h>
#include <utf8proc.h>

#include <algorithm>

#include "base/format.h"
#include "text/jinja_text_tables.h"

namespace cadre::jinja {
namespace {

unsigned char ByteAt(std::string_view s, size_t i) {
  return static_cast<unsigned char>(s[i]);
}
bool IsContinuation(unsigned char b) {
  return (b & 0xC0) == 0x80;
}

utf8proc_category_t Category(char32_t c) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(c));
}

void AppendUpper(std::string& out, char32_t c) {
  if (const SpecialCase* special = c < 0xDF ? nullptr : FindSpecialCase(c)) {
    for (char32_t part : special->upper) {
      if (part != 0) AppendChar(out, part);
    }
  } else {
    AppendChar(out, static_cast<char32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(c))));
  }
}

void AppendTitle(std::string& out, char32_t c) {
  if (const SpecialCase* special = c < 0xDF ? nullptr : FindSpecialCase(c)) {
    for (char32_t part : special->title) {
      if (part != 0) AppendChar(out, part);
    }
  } else {
    AppendChar(out, static_cast<char32_t>(utf8proc_totitle(static_cast<utf8proc_int32_t>(c))));
  }
}

bool IsCased(char32_t c) {
  return IsLower(c) || IsUpper(c) || Category(c) == UTF8PROC_CATEGORY_LT;
}

// Unicode's Case_Ignorable, as far as categories tell.
bool IsCaseIgnorable(char32_t c) {
  switch (Category(c)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_SK:
      return true;
    default:
      return c == '\'' || c == '.' || c == ':' || c == 0xB7 || c == 0x2019 || c == 0x2018 || c == 0x2024;
  }
}

// A capital sigma is final when a cased letter stands before it and none after.
bool IsFinalSigma(std::string_view s, size_t pos, size_t size) {
  size_t before = pos;
  bool cased_before = false;
  while (before > 0) {
    before = CharBefore(s, before);
    const char32_t c = CharAt(s, before, nullptr);
    if (IsCaseIgnorable(c)) continue;
    cased_before = IsCased(c);
    break;
  }
  if (!cased_before) return false;
  for (size_t after = pos + size; after < s.size();) {
    size_t n = 0;
    const char32_t c = CharAt(s, after, &n);
    after += n;
    if (!IsCaseIgnorable(c)) return !IsCased(c);
  }
  return true;
}

void AppendLower(std::string& out, std::string_view s, size_t pos, char32_t c, size_t size) {
  if (c == 0x3A3) {
    AppendChar(out, IsFinalSigma(s, pos, size) ? 0x3C2 : 0x3C3);
  } else if (c == 0x130) {
    out += "i\xCC\x87";
  } else {
    AppendChar(out, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))));
  }
}

template <typename F>
std::string MapChars(std::string_view s, F&& append) {
  std::string out;
  out.reserve(s.size());
  for (size_t pos = 0; pos < s.size();) {
    size_t size = 0;
    const char32_t c = CharAt(s, pos, &size);
    append(out, pos, c, size);
    pos += size;
  }
  return out;
}

std::string Reversed(std::string_view s) {
  return std::string(s.rbegin(), s.rend());
}

}  // namespace

size_t CharSize(std::string_view s, size_t pos) {
  const unsigned char lead = ByteAt(s, pos);
  const size_t want = lead < 0xC2 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : lead < 0xF5 ? 4 : 1;
  if (pos + want > s.size()) return 1;
  for (size_t i = 1; i < want; ++i) {
    if (!IsContinuation(ByteAt(s, pos + i))) return 1;
  }
  return want;
}

char32_t CharAt(std::string_view s, size_t pos, size_t* size) {
  const size_t n = CharSize(s, pos);
  if (size != nullptr) *size = n;
  const char32_t lead = ByteAt(s, pos);
  if (n == 1) return lead < 0x80 ? lead : 0xFFFD;
  char32_t c = lead & (0xFFu >> (n + 1));
  for (size_t i = 1; i < n; ++i) c = (c << 6) | (ByteAt(s, pos + i) & 0x3F);
  return c;
}

size_t CharBefore(std::string_view s, size_t end) {
  for (size_t n = 1; n <= 4 && n <= end; ++n) {
    if (IsContinuation(ByteAt(s, end - n))) continue;
    return CharSize(s, end - n) == n ? end - n : end - 1;
  }
  return end - 1;
}

void AppendChar(std::string& out, char32_t c) {
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else if (c < 0x800) {
    out += static_cast<char>(0xC0 | (c >> 6));
    out += static_cast<char>(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    out += static_cast<char>(0xE0 | (c >> 12));
    out += static_cast<char>(0x80 | ((c >> 6) & 0x3F));
    out += static_cast<char>(0x80 | (c & 0x3F));
  } else {
    out += static_cast<char>(0xF0 | (c >> 18));
    out += static_cast<char>(0x80 | ((c >> 12) & 0x3F));
    out += static_cast<char>(0x80 | ((c >> 6) & 0x3F));
    out += static_cast<char>(0x80 | (c & 0x3F));
  }
}

size_t FindInvalidUtf8(std::string_view s) {
  for (size_t pos = 0; pos < s.size();) {
    size_t n = 0;
    const char32_t c = CharAt(s, pos, &n);
    const bool overlong = (n == 3 && c < 0x800) || (n == 4 && (c < 0x10000 || c > 0x10FFFF));
    if ((n == 1 && ByteAt(s, pos) >= 0x80) || overlong || (c >= 0xD800 && c < 0xE000)) return pos;
    pos += n;
  }
  return std::string_view::npos;
}

int64_t CountChars(std::string_view s) {
  // Whole UTF-8 has one character per byte that is no continuation; only damaged text needs the slow walk.
  size_t high = 0;
  for (const char c : s) high += static_cast<unsigned char>(c) >> 7;
  if (high == 0) return static_cast<int64_t>(s.size());
  int64_t n = 0;
  for (size_t pos = 0; pos < s.size(); pos += CharSize(s, pos)) ++n;
  return n;
}

size_t ByteOffset(std::string_view s, int64_t n) {
  size_t pos = 0;
  for (; n > 0 && pos < s.size(); --n) pos += CharSize(s, pos);
  return pos;
}

bool IsSpace(char32_t c) {
  if (c < 0x80) return c == ' ' || (c >= 9 && c <= 13) || (c >= 0x1C && c <= 0x1F);
  return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
         c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool IsLineBreak(char32_t c) {
  return (c >= 10 && c <= 13) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

bool IsAlpha(char32_t c) {
  const auto category = Category(c);
  return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}
bool IsDecimal(char32_t c) {
  return c < 0x80 ? c >= '0' && c <= '9' : Category(c) == UTF8PROC_CATEGORY_ND;
}
bool IsDigit(char32_t c) {
  return IsDecimal(c) || (c >= 0x80 && IsOtherDigit(c));
}
bool IsNumeric(char32_t c) {
  const auto category = Category(c);
  return (category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO) || IsOtherNumeric(c);
}
bool IsLower(char32_t c) {
  if (c < 0x80) return c >= 'a' && c <= 'z';
  return Category(c) == UTF8PROC_CATEGORY_LL || IsOtherLower(c);
}
bool IsUpper(char32_t c) {
  if (c < 0x80) return c >= 'A' && c <= 'Z';
  return Category(c) == UTF8PROC_CATEGORY_LU || IsOtherUpper(c);
}
bool IsTitle(char32_t c) {
  return Category(c) == UTF8PROC_CATEGORY_LT;
}

bool IsPrintable(char32_t c) {
  if (c < 0x7F) return c >= ' ';
  const auto category = Category(c);
  return category != UTF8PROC_CATEGORY_CN && category < UTF8PROC_CATEGORY_ZS;
}

bool IsIdentifierStart(char32_t c) {
  return c == '_' || IsAlpha(c) || Category(c) == UTF8PROC_CATEGORY_NL;
}
bool IsIdentifierPart(char32_t c) {
  const auto category = Category(c);
  return IsIdentifierStart(c) || category == UTF8PROC_CATEGORY_MN || category == UTF8PROC_CATEGORY_MC ||
         category == UTF8PROC_CATEGORY_ND || category == UTF8PROC_CATEGORY_PC || c == 0xB7;
}

std::string Upper(std::string_view s) {
  return MapChars(s, [](std::string& out, size_t, char32_t c, size_t) { AppendUpper(out, c); });
}
std::string Lower(std::string_view s) {
  return MapChars(
      s, [&](std::string& out, size_t pos, char32_t c, size_t n) { AppendLower(out, s, pos, c, n); });
}
std::string Title(std::string_view s) {
  bool in_word = false;
  return MapChars(s, [&](std::string& out, size_t pos, char32_t c, size_t n) {
    if (in_word) {
      AppendLower(out, s, pos, c, n);
    } else {
      AppendTitle(out, c);
    }
    in_word = IsCased(c);
  });
}
std::string Capitalize(std::string_view s) {
  return MapChars(s, [&](std::string& out, size_t pos, char32_t c, size_t n) {
    if (pos == 0) {
      AppendTitle(out, c);
    } else {
      AppendLower(out, s, pos, c, n);
    }
  });
}
std::string SwapCase(std::string_view s) {
  return MapChars(s, [&](std::string& out, size_t pos, char32_t c, size_t n) {
    if (IsUpper(c)) {
      AppendLower(out, s, pos, c, n);
    } else if (IsLower(c)) {
      AppendUpper(out, c);
    } else {
      AppendChar(out, c);
    }
  });
}
std::string CaseFold(std::string_view s) {
  return MapChars(s, [](std::string& out, size_t, char32_t c, size_t) {
    utf8proc_int32_t folded[8];
    int boundary = 0;
    const auto n =
        utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c), folded, 8, UTF8PROC_CASEFOLD, &boundary);
    if (n < 1 || n > 8) {
      AppendChar(out, c);
    } else {
      for (int i = 0; i < n; ++i) AppendChar(out, static_cast<char32_t>(folded[i]));
    }
  });
}

std::string_view Strip(std::string_view s, const std::string_view* chars, bool left, bool right) {
  // ASCII characters are asked in a table; the rest of the set is searched.
  bool ascii[128] = {};
  if (chars != nullptr) {
    for (const char c : *chars) {
      if (static_cast<unsigned char>(c) < 128) ascii[static_cast<unsigned char>(c)] = true;
    }
  }
  const auto matches = [&](size_t pos, size_t n) {
    if (n == 1 && ByteAt(s, pos) < 128)
      return chars == nullptr ? IsSpace(ByteAt(s, pos)) : ascii[ByteAt(s, pos)];
    return chars == nullptr ? IsSpace(CharAt(s, pos, nullptr))
                            : chars->find(s.substr(pos, n)) != std::string_view::npos;
  };
  size_t begin = 0;
  size_t end = s.size();
  while (left && begin < end) {
    const size_t n = CharSize(s, begin);
    if (!matches(begin, n)) break;
    begin += n;
  }
  while (right && end > begin) {
    const size_t pos = CharBefore(s, end);
    if (!matches(pos, end - pos)) break;
    end = pos;
  }
  return s.substr(begin, end - begin);
}

size_t Find(std::string_view s, std::string_view needle, size_t from) {
  if (from > s.size()) return std::string_view::npos;
  if (needle.empty()) return from;
  if (needle.size() == 1) return s.find(needle[0], from);
  // glibc's memmem is linear in the worst case; string_view::find is not. In windows, because
  // AddressSanitizer looks at all of the haystack in every call.
  const size_t window = std::max<size_t>(4096, 4 * needle.size());
  for (; from + needle.size() <= s.size(); from += window) {
    const size_t size = std::min(window + needle.size() - 1, s.size() - from);
    if (const void* found = memmem(s.data() + from, size, needle.data(), needle.size())) {
      return static_cast<size_t>(static_cast<const char*>(found) - s.data());
    }
  }
  return std::string_view::npos;
}

size_t FindLast(std::string_view s, std::string_view needle) {
  if (needle.empty()) return s.size();
  if (needle.size() > s.size()) return std::string_view::npos;
  const std::string reversed = Reversed(s);
  const size_t found = Find(reversed, Reversed(needle));
  return found == std::string_view::npos ? found : s.size() - found - needle.size();
}

void SplitWhitespace(std::string_view s, int64_t limit, bool from_right, const Emit& emit) {
  std::string_view rest = Strip(s, nullptr, !from_right, from_right);
  for (int64_t n = 0; !rest.empty(); ++n) {
    if (n == limit) {
      emit(rest);  // its far end keeps its whitespace, as Python leaves it
      return;
    }
    if (from_right) {
      size_t begin = rest.size();
      while (begin > 0) {
        const size_t pos = CharBefore(rest, begin);
        if (IsSpace(CharAt(rest, pos, nullptr))) break;
        begin = pos;
      }
      emit(rest.substr(begin));
      rest = Strip(rest.substr(0, begin), nullptr, false, true);
    } else {
      size_t end = 0;
      while (end < rest.size() && !IsSpace(CharAt(rest, end, nullptr))) end += CharSize(rest, end);
      emit(rest.substr(0, end));
      rest = Strip(rest.substr(end), nullptr, true, false);
    }
  }
}

void SplitOn(std::string_view s, std::string_view separator, int64_t limit, bool from_right,
             const Emit& emit) {
  const std::string reversed = from_right ? Reversed(s) : std::string();
  const std::string reversed_separator = from_right ? Reversed(separator) : std::string();
  const std::string_view text = from_right ? std::string_view(reversed) : s;
  const std::string_view mark = from_right ? std::string_view(reversed_separator) : separator;
  // Of text[begin, end), the piece of s that it is.
  const auto piece = [&](size_t begin, size_t end) {
    return from_right ? s.substr(s.size() - end, end - begin) : s.substr(begin, end - begin);
  };
  size_t begin = 0;
  for (int64_t n = 0; n != limit; ++n) {
    const size_t found = Find(text, mark, begin);
    if (found == std::string_view::npos) break;
    emit(piece(begin, found));
    begin = found + mark.size();
  }
  emit(piece(begin, s.size()));
}

void SplitLines(std::string_view s, bool keep_ends, const Emit& emit) {
  size_t begin = 0;
  for (size_t pos = 0; pos < s.size();) {
    size_t n = 0;
    const char32_t c = CharAt(s, pos, &n);
    if (!IsLineBreak(c)) {
      pos += n;
      continue;
    }
    if (c == '\r' && pos + 1 < s.size() && s[pos + 1] == '\n') n = 2;
    emit(s.substr(begin, pos - begin + (keep_ends ? n : 0)));
    pos += n;
    begin = pos;
  }
  if (begin < s.size()) emit(s.substr(begin));
}

void AppendStrRepr(std::string& out, std::string_view s, size_t max_bytes) {
  const bool has_single = s.find('\'') != std::string_view::npos;
  const char quote = has_single && s.find('"') == std::string_view::npos ? '"' : '\'';
  out += quote;
  for (size_t pos = 0; pos < s.size() && out.size() <= max_bytes;) {
    size_t n = 0;
    const char32_t c = CharAt(s, pos, &n);
    if (c == static_cast<char32_t>(quote) || c == '\\') {
      out += '\\';
      out += static_cast<char>(c);
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\r') {
      out += "\\r";
    } else if (c == '\t') {
      out += "\\t";
    } else if (IsPrintable(c)) {
      out.append(s, pos, n);
    } else if (c < 0x100) {
      out += Format("\\x{:02x}", static_cast<uint32_t>(c));
    } else if (c < 0x10000) {
      out += Format("\\u{:04x}", static_cast<uint32_t>(c));
    } else {
      out += Format("\\U{:08x}", static_cast<uint32_t>(c));
    }
    pos += n;
  }
  out += quote;
}

}  // namespace cadre::jinja
