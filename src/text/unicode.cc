#include "text/unicode.h"

#include <utf8proc.h>

#include <algorithm>

#include "base/check.h"
#include "text/unicode_additions.h"
#include "text/utf8.h"

namespace cadre::text {
namespace {

utf8proc_category_t CategoryOf(char32_t cp) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(cp));
}

// Below U+0300 every code point is its own NFC and combines with nothing before it. So all is in NFC up to
// the last code point before the first one past there: its offset, or text.size() if there is none.
size_t NfcPrefix(std::string_view text) {
  size_t last = 0;
  for (size_t pos = 0; pos < text.size();) {
    const unsigned char lead = static_cast<unsigned char>(text[pos]);
    if (lead >= 0xCC) return last;  // U+0300 is CC 80
    last = pos;
    pos += lead < 0x80 ? 1 : 2;
  }
  return text.size();
}

using Point = utf8proc_int32_t;

// A code point that no neighbour can change: it does not decompose, compose or reorder.
bool IsInert(Point cp, bool compatible) {
  if (cp < 0x80) return false;  // may compose with a mark behind it
  const utf8proc_property_t* p = utf8proc_get_property(cp);
  const bool stays = p->decomp_seqindex == UINT16_MAX || (!compatible && p->decomp_type != 0);
  const bool is_hangul = (cp >= 0x1100 && cp < 0x1200) || (cp >= 0xAC00 && cp < 0xD7A4);
  return stays && !is_hangul && p->comb_index == UINT16_MAX && p->combining_class == 0;
}

void Decompose(Point cp, bool compatible, std::vector<Point>& out) {
  const auto flags = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE |
                                                    (compatible ? UTF8PROC_COMPAT : 0));
  constexpr utf8proc_ssize_t kMost = 18;  // Unicode standard, section 3.7: the longest decomposition
  Point points[kMost];
  int boundary = 0;
  const utf8proc_ssize_t count = utf8proc_decompose_char(cp, points, kMost, flags, &boundary);
  CADRE_CHECK(count >= 0 && count <= kMost);
  out.insert(out.end(), points, points + count);
}

uint64_t RankOf(Point cp) {
  return static_cast<uint64_t>(utf8proc_get_property(cp)->combining_class);
}

// Sorts by combining class; marks of one class keep their order.
void SortMarks(std::vector<Point>::iterator begin, std::vector<Point>::iterator end) {
  if (std::is_sorted(begin, end, [](Point a, Point b) { return RankOf(a) < RankOf(b); })) return;
  const std::vector<Point> marks(begin, end);
  std::vector<uint64_t> order;  // class, then place
  order.reserve(marks.size());
  for (size_t i = 0; i < marks.size(); ++i) order.push_back(RankOf(marks[i]) << 32 | i);
  std::sort(order.begin(), order.end());
  for (const uint64_t place : order) *begin++ = marks[place & UINT32_MAX];
}

// Puts runs of marks into canonical order. utf8proc_decompose would do it in quadratic time.
void Reorder(std::vector<Point>& points) {
  for (auto it = points.begin(); it != points.end();) {
    if (RankOf(*it) == 0) {
      ++it;
      continue;
    }
    const auto end = std::find_if(it, points.end(), [&](Point cp) { return RankOf(cp) == 0; });
    SortMarks(it, end);
    it = end;
  }
}

void Flush(std::vector<Point>& pending, bool composes, std::string& out) {
  if (pending.empty()) return;
  Reorder(pending);
  auto count = static_cast<utf8proc_ssize_t>(pending.size());
  if (composes) {
    const auto flags = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    count = utf8proc_normalize_utf32(pending.data(), count, flags);
    CADRE_CHECK(count >= 0);
  }
  for (utf8proc_ssize_t i = 0; i < count; ++i) {
    AppendUtf8(out, static_cast<char32_t>(pending[static_cast<size_t>(i)]));
  }
  pending.clear();
}

}  // namespace

std::string ToNormalForm(std::string_view text, NormalForm form) {
  const bool composes = form == NormalForm::kNfc || form == NormalForm::kNfkc;
  const bool compatible = form == NormalForm::kNfkc || form == NormalForm::kNfkd;
  const size_t done = form == NormalForm::kNfc ? NfcPrefix(text) : 0;
  std::string out(text.substr(0, done));
  out.reserve(text.size());
  std::vector<Point> pending;
  for (size_t pos = done; pos < text.size();) {
    const size_t start = pos;
    const auto cp = static_cast<Point>(NextCodePoint(text, pos));
    if (composes ? IsInert(cp, compatible) : cp < 0x80) {
      Flush(pending, composes, out);
      out.append(text, start, pos - start);
    } else {
      Decompose(cp, compatible, pending);
    }
  }
  Flush(pending, composes, out);
  return out;
}

void AppendLowercase(std::string& out, char32_t cp) {
  if (cp < 0x80) {
    out += static_cast<char>(cp >= 'A' && cp <= 'Z' ? cp + 32 : cp);
  } else if (cp == 0x130) {
    out += "i\xCC\x87";  // SpecialCasing.txt: the only lower case that is two code points
  } else {
    AppendUtf8(out, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(cp))));
  }
}

bool IsWhitespace(char32_t cp) {
  if (cp < 0x80) return cp == ' ' || (cp >= '\t' && cp <= '\r');
  return cp == 0x85 || cp == 0xA0 || cp == 0x1680 || (cp >= 0x2000 && cp <= 0x200A) || cp == 0x2028 ||
         cp == 0x2029 || cp == 0x202F || cp == 0x205F || cp == 0x3000;
}

bool IsNumeric(char32_t cp) {
  if (cp < 0x80) return cp >= '0' && cp <= '9';
  const utf8proc_category_t c = CategoryOf(cp);
  return c == UTF8PROC_CATEGORY_ND || c == UTF8PROC_CATEGORY_NL || c == UTF8PROC_CATEGORY_NO ||
         IsAddedTo(cp, "N");
}

bool IsAsciiPunctuation(char32_t cp) {
  return (cp >= '!' && cp <= '/') || (cp >= ':' && cp <= '@') || (cp >= '[' && cp <= '`') ||
         (cp >= '{' && cp <= '~');
}

bool IsPunctuation(char32_t cp) {
  const utf8proc_category_t c = CategoryOf(cp);
  return c >= UTF8PROC_CATEGORY_PC && c <= UTF8PROC_CATEGORY_PO;
}

bool IsMark(char32_t cp) {
  const utf8proc_category_t c = CategoryOf(cp);
  return c == UTF8PROC_CATEGORY_MN || c == UTF8PROC_CATEGORY_MC || c == UTF8PROC_CATEGORY_ME;
}

bool IsNonspacingMark(char32_t cp) {
  return CategoryOf(cp) == UTF8PROC_CATEGORY_MN;
}

bool IsOther(char32_t cp) {
  const utf8proc_category_t c = CategoryOf(cp);
  return c == UTF8PROC_CATEGORY_CC || c == UTF8PROC_CATEGORY_CF || c == UTF8PROC_CATEGORY_CO;
}

std::vector<size_t> GraphemeEnds(std::string_view text) {
  std::vector<size_t> ends;
  utf8proc_int32_t state = 0;
  utf8proc_int32_t before = -1;
  for (size_t pos = 0; pos < text.size();) {
    const size_t start = pos;
    const auto cp = static_cast<utf8proc_int32_t>(NextCodePoint(text, pos));
    if (before >= 0 && utf8proc_grapheme_break_stateful(before, cp, &state)) ends.push_back(start);
    before = cp;
  }
  if (!text.empty()) ends.push_back(text.size());
  return ends;
}

}  // namespace cadre::text
