#include "text/stop.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <malloc.h>

#include "base/random.h"

namespace cadre::text {
namespace {

struct Outcome {
  std::string text;
  int index = -1;
  size_t begin = 0;

  friend bool operator==(const Outcome&, const Outcome&) = default;
};

// The slow twin: the first place where any stop string ends; the one listed first of those.
Outcome Naive(const std::vector<std::string>& stops, const std::string& text, bool keep) {
  for (size_t end = 1; end <= text.size(); ++end) {
    for (size_t i = 0; i < stops.size(); ++i) {
      if (stops[i].empty() || !text.substr(0, end).ends_with(stops[i])) continue;
      const size_t begin = end - stops[i].size();
      return {text.substr(0, keep ? end : begin), static_cast<int>(i), begin};
    }
  }
  return {text, -1, 0};
}

Outcome Feed(StopMatcher& matcher, const std::vector<std::string>& pieces) {
  Outcome outcome;
  for (const std::string& piece : pieces) outcome.text += matcher.Push(piece);
  outcome.text += matcher.Flush();
  if (matcher.match()) {
    outcome.index = static_cast<int>(matcher.match()->index);
    outcome.begin = matcher.match()->begin;
  }
  return outcome;
}

TEST(StopMatcher, AgreesWithNaiveSearchHoweverTextIsCut) {
  const uint64_t seed = 11;
  uint64_t counter = 0;
  const auto draw = [&](size_t below) {
    return static_cast<size_t>(UniformAt(seed, 0, counter++) * static_cast<double>(below));
  };
  int num_matches = 0;
  for (int round = 0; round < 4000; ++round) {
    const auto word = [&](size_t longest) {
      std::string text;
      for (size_t n = draw(longest + 1); n > 0; --n) text += "aab\n"[draw(4)];
      return text;
    };
    std::vector<std::string> stops;
    for (size_t n = draw(4); n > 0; --n) stops.push_back(word(5));
    const std::string text = word(30);
    std::vector<std::string> pieces;
    for (size_t pos = 0; pos < text.size();) {
      pieces.push_back(text.substr(pos, 1 + draw(5)));
      pos += pieces.back().size();
    }
    const bool keep = draw(2) == 0;
    StopMatcher matcher(stops, keep);
    const Outcome expected = Naive(stops, text, keep);
    EXPECT_EQ(Feed(matcher, pieces), expected)
        << testing::PrintToString(stops) << testing::PrintToString(pieces);
    num_matches += expected.index >= 0;
  }
  EXPECT_GT(num_matches, 500);
}

TEST(StopMatcher, HoldsBackOnlyWhatMayBeAStop) {
  StopMatcher matcher({"<end>", "\n\n"}, false);
  EXPECT_EQ(matcher.Push("one <e"), "one ");
  EXPECT_EQ(matcher.Push("x"), "<ex");
  EXPECT_EQ(matcher.Push("two\n"), "two");
  EXPECT_EQ(matcher.Push("three\n"), "\nthree");
  EXPECT_EQ(matcher.Push("\nfour"), "");
  ASSERT_TRUE(matcher.match());
  EXPECT_EQ(matcher.match()->index, 1u);
  EXPECT_EQ(matcher.match()->begin, 16u);
  EXPECT_EQ(matcher.Push("more"), "");
  EXPECT_EQ(matcher.Flush(), "");
}

// min_tokens: what ends before stopping is allowed does not stop, what ends behind does, wherever it began.
TEST(StopMatcher, MatchesThatMayNotStopDoNotCount) {
  StopMatcher matcher({"stop"}, true);
  std::string text = matcher.Push("a stop, then st", false);
  text += matcher.Push("op and on");
  EXPECT_EQ(text, "a stop, then stop");
  ASSERT_TRUE(matcher.match());
  EXPECT_EQ(matcher.match()->begin, 13u);
  StopMatcher whole({"ab"}, false);
  text = whole.Push("ab", false);
  text += whole.Push("c");
  EXPECT_EQ(text + whole.Flush(), "abc");
}

// Linear: a stop string of one letter repeated, and a text that nearly matches everywhere.
TEST(StopMatcher, HostileStringsStayLinear) {
  const std::string stop = std::string(100'000, 'a') + "b";
  StopMatcher matcher({stop, std::string(50'000, 'a') + "c"}, false);
  size_t size = 0;
  for (int i = 0; i < 20; ++i) size += matcher.Push(std::string(50'000, 'a')).size();
  EXPECT_EQ(size, 1'000'000u - 100'000u);
  EXPECT_EQ(matcher.Flush().size(), 100'000u);
}

TEST(Stop, CopiesShareTheAutomaton) {
  std::vector<std::string> stops;
  for (const char c : {'a', 'b', 'c', 'd'}) stops.push_back(std::string(4096, c));
  const StopMatcher first(stops, false);
  const size_t before = mallinfo2().uordblks;
  const std::vector<StopMatcher> copies(1000, first);
  // Under a sanitizer both are zero.
  EXPECT_LT(mallinfo2().uordblks - before, 1000u * 300);
  StopMatcher copy = copies.back();
  EXPECT_EQ(copy.Push("xaa"), "x");
  EXPECT_EQ(copy.Push(std::string(4094, 'a')), "");
  EXPECT_TRUE(copy.match().has_value());
  EXPECT_FALSE(copies.front().match().has_value());
}

}  // namespace
}  // namespace cadre::text
