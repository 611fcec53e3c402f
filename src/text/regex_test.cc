#include "text/regex.h"

#include <gtest/gtest.h>

namespace cadre::text {
namespace {

// The matches, with '|' between them.
std::string Matches(std::string_view pattern, std::string_view text) {
  auto regex = Regex::Compile(pattern);
  if (!regex) return "error: " + regex.error().message;
  std::vector<Span> spans;
  regex->FindAll(text, spans);
  std::string out;
  for (size_t i = 0; i < spans.size(); ++i) {
    if (i > 0) out += '|';
    out += text.substr(spans[i].begin, spans[i].end - spans[i].begin);
  }
  return out;
}

// Expectations come from Oniguruma by way of the reference library.
TEST(Regex, ReadsRubySyntax) {
  EXPECT_EQ(Matches("\\p{N}{1,3}+", "1234567"), "1234567");  // a repeated repeat, not a possessive one
  EXPECT_EQ(Matches("a++b|a", "aab"), "aab");
  EXPECT_EQ(Matches("a{2}?", "aaaaa"), "aa|aa|");  // optional, not lazy
  EXPECT_EQ(Matches("a{,2}", "aaaaa"), "aa|aa|a");
  EXPECT_EQ(Matches("a{x}", "a{x}"), "a{x}");
  EXPECT_EQ(Matches("a(?i)b|c", "aB aC C c ac"), "aB|aC|ac");  // the option encloses both alternatives
  EXPECT_EQ(Matches("[a-z&&[^b]]+", "abcab"), "a|ca");
  EXPECT_EQ(Matches("[\\p{L}&&[^\\p{Han}]]+",
                    "ab\xE6\x9D\xB1"
                    "c"),
            "ab|c");
  EXPECT_EQ(Matches("[a[bc]]+", "abcd"), "abc");
  EXPECT_EQ(Matches("[^a&&bc]+", "abcd"), "abcd");
  EXPECT_EQ(Matches("[]a]+", "]a"), "]a");
  EXPECT_EQ(Matches("^a$", "a\nb\na"), "a|a");
  EXPECT_EQ(Matches("(?m:.)+", "a\nb"), "a\nb");
  EXPECT_EQ(Matches(".+",
                    "a\nb\r\xE2\x80\xA8"
                    "c"),
            "a|b\r\xE2\x80\xA8"
            "c");
  EXPECT_EQ(Matches("\\h+", "af z"), "af");
  EXPECT_EQ(Matches("(?<!\\d)\\d{2}", "1234"), "12");
  EXPECT_EQ(Matches("(a)\\1", "aab"), "aa");
  EXPECT_EQ(Matches("\\u0061[\\x{62}-\\x{63}]\\x64", "abdacd"), "abd|acd");
  EXPECT_EQ(Matches("\\p{^L}+", "ab12"), "12");
  EXPECT_EQ(Matches("[[:punct:]]", "a$b!"), "$|!");
  EXPECT_EQ(Matches("\\p{Punct}", "a$b!"), "!");
  EXPECT_EQ(Matches("x*", "axxb"), "|xx|");
}

TEST(Regex, SetsOfCodePointsAreOnigurumas) {
  EXPECT_EQ(Matches("\\s", "\xE1\xA0\x8E"), "");  // U+180E is no space
  EXPECT_EQ(Matches("\\w+",
                    "a\xC2\xB2"
                    "b e\xCC\x81"),
            "a\xC2\xB2"
            "b|e\xCC\x81");  // a superscript, a mark
  EXPECT_EQ(Matches("[\\w]+",
                    "a\xC2\xB2"
                    "b"),
            "a|b");
  EXPECT_EQ(Matches("\\p{Han}", "\xE3\x80\x81"), "");                    // a comma that Han shares is no Han
  EXPECT_EQ(Matches("\\p{S}", "\xF0\x9F\xA9\xB7"), "\xF0\x9F\xA9\xB7");  // an emoji of 2022
  EXPECT_EQ(Matches("[^\\s\\p{L}\\p{N}]+", "\xF0\x9F\xA9\xB7!"), "\xF0\x9F\xA9\xB7!");
  EXPECT_EQ(Matches("\\p{L}+", "a\xF0\xB1\x8D\x90"), "a\xF0\xB1\x8D\x90");  // U+31350
}

TEST(Regex, RefusesByNameWhatItCannotRun) {
  for (const char* pattern : {"(", ")", "[a", "(?<n", "a\\", "*", "[z-a]", "\\p{Nope_Nope}", "(*NO_JIT)a",
                              "(?~a)", "\\xFF", "\\k<a>", "(?P<a>b)"}) {
    const auto regex = Regex::Compile(pattern);
    ASSERT_FALSE(regex) << pattern;
    EXPECT_NE(regex.error().message.find("regular expression"), std::string::npos) << regex.error().message;
  }
}

TEST(Regex, ExplodingPatternsGiveUp) {
  EXPECT_EQ(Matches("(a+)+$", std::string(200, 'a') + "b"), "");
  EXPECT_EQ(Matches("\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+", std::string(1 << 20, ' ')), std::string(1 << 20, ' '));
}

}  // namespace
}  // namespace cadre::text
