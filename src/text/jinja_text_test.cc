// The searches of jinja_text.h against the plain ones of the standard library, and text that is no UTF-8.
#include "text/jinja_text.h"

#include <gtest/gtest.h>

#include <random>

namespace cadre::jinja {
namespace {

std::vector<std::string> Split(std::string_view s, std::string_view separator, int64_t limit,
                               bool from_right) {
  std::vector<std::string> parts;
  SplitOn(s, separator, limit, from_right, [&](std::string_view part) { parts.emplace_back(part); });
  return parts;
}

TEST(JinjaText, SearchesAgreeWithTheStandardLibrary) {
  std::mt19937 random(7);
  for (int round = 0; round < 3000; ++round) {
    // Few letters, so that needles match; sizes around the search's window of 4096 bytes.
    const size_t size = round % 3 == 0 ? 4080 + random() % 4200 : random() % 60;
    std::string text(size, 'a');
    for (char& c : text) c = random() % (round % 5 == 0 ? 200 : 3) == 0 ? 'b' : 'a';
    std::string needle(1 + random() % (round % 7 == 0 ? 1200 : 5), 'a');
    if (random() % 2 == 0) needle[random() % needle.size()] = 'b';
    const size_t from = random() % (size + 2);
    EXPECT_EQ(Find(text, needle, from), text.find(needle, from));
    EXPECT_EQ(FindLast(text, needle), text.rfind(needle));
    // A split put together again is the text, and no part has a separator in it.
    for (const bool from_right : {false, true}) {
      std::vector<std::string> parts = Split(text, needle, -1, from_right);
      if (from_right) std::reverse(parts.begin(), parts.end());
      std::string joined = parts[0];
      for (size_t i = 1; i < parts.size(); ++i) joined += needle + parts[i];
      EXPECT_EQ(joined, text);
      for (const std::string& part : parts) EXPECT_EQ(part.find(needle), std::string::npos);
    }
  }
}

TEST(JinjaText, SplitHonoursItsLimit) {
  EXPECT_EQ(Split("a,b,c", ",", 1, false), (std::vector<std::string>{"a", "b,c"}));
  EXPECT_EQ(Split("a,b,c", ",", 1, true), (std::vector<std::string>{"c", "a,b"}));
  EXPECT_EQ(Split("aaa", "aa", -1, true), (std::vector<std::string>{"", "a"}));
}

TEST(JinjaText, FindsTheFirstByteThatIsNotUtf8) {
  EXPECT_EQ(FindInvalidUtf8("plain é 日 🎉"), std::string_view::npos);
  for (const std::string_view bad : {"\x80", "\xC3", "\xC0\x80", "\xE0\x80\x80", "\xED\xA0\x80",
                                     "\xF4\x90\x80\x80", "\xF0\x80\x80\x80", "\xFF", "\xE6\x97"}) {
    EXPECT_EQ(FindInvalidUtf8("ok" + std::string(bad) + "x"), 2u);
  }
}

TEST(JinjaText, DamagedTextIsWalkedToItsEnd) {
  std::mt19937 random(3);
  for (int round = 0; round < 2000; ++round) {
    std::string text(random() % 12, '\0');
    for (char& c : text) c = static_cast<char>(random() % 3 == 0 ? 0xC0 + random() % 64 : random() % 256);
    int64_t forward = 0;
    for (size_t pos = 0; pos < text.size(); pos += CharSize(text, pos)) ++forward;
    EXPECT_EQ(CountChars(text), forward);
    EXPECT_EQ(ByteOffset(text, forward), text.size());
    size_t end = text.size();
    while (end > 0) {
      const size_t begin = CharBefore(text, end);
      ASSERT_LT(begin, end);
      end = begin;
    }
    std::string repr;
    AppendStrRepr(repr, text, 1000);
    EXPECT_GE(Upper(text).size() + Lower(text).size() + Title(text).size() + repr.size(), 2u);
  }
}

}  // namespace
}  // namespace cadre::jinja
