#include "text/utf8.h"

#include <gtest/gtest.h>

#include "base/random.h"
#include "text/unicode.h"

namespace cadre::text {
namespace {

std::string Encoded(char32_t cp) {
  std::string text;
  AppendUtf8(text, cp);
  return text;
}

TEST(Utf8, EveryCodePointGoesAndComes) {
  for (char32_t cp = 0; cp <= 0x10FFFF; ++cp) {
    if (cp >= 0xD800 && cp < 0xE000) continue;
    const std::string text = Encoded(cp);
    size_t pos = 0;
    ASSERT_EQ(NextCodePoint(text, pos), cp);
    ASSERT_EQ(pos, text.size());
    ASSERT_EQ(ValidUtf8Prefix(text), text.size());
  }
}

// What Python's bytes.decode(errors="replace") gives.
TEST(Utf8, DamagedBytesAreRepairedBySubparts) {
  const std::string r(kReplacementText);
  EXPECT_EQ(RepairUtf8("a\xFF"
                       "b"),
            "a" + r + "b");
  EXPECT_EQ(RepairUtf8("\xC0\x80"), r + r);
  EXPECT_EQ(RepairUtf8("\xE2\x82"), r);
  EXPECT_EQ(RepairUtf8("\xE2\x82"
                       "a"),
            r + "a");
  EXPECT_EQ(RepairUtf8("\xF0\x9F\x98"), r);
  EXPECT_EQ(RepairUtf8("\xF0\x9F\x98\xF0\x9F\x98\x80"), r + "\xF0\x9F\x98\x80");
  EXPECT_EQ(RepairUtf8("\xED\xA0\x80"), r + r + r);          // a surrogate
  EXPECT_EQ(RepairUtf8("\xF4\x90\x80\x80"), r + r + r + r);  // past U+10FFFF
  EXPECT_EQ(RepairUtf8("\xE0\x80\x80"), r + r + r);          // too long a form
  EXPECT_EQ(RepairUtf8("\xF0\x80\x80\x41"), r + r + r + "A");
}

TEST(Utf8, RepairDoesNotDependOnHowBytesAreCut) {
  constexpr unsigned char kBytes[] = {'a',  0x80, 0xBF, 0xC3, 0xA9, 0xE2, 0x82,
                                      0xAC, 0xF0, 0x9F, 0x98, 0x80, 0xED, 0xFF};
  uint64_t counter = 0;
  const auto draw = [&](size_t below) {
    return static_cast<size_t>(UniformAt(5, 0, counter++) * static_cast<double>(below));
  };
  for (int round = 0; round < 5000; ++round) {
    std::string bytes;
    for (size_t n = draw(20); n > 0; --n) bytes += static_cast<char>(kBytes[draw(sizeof(kBytes))]);
    Utf8Repair repair;
    std::string out;
    for (size_t pos = 0; pos < bytes.size();) {
      const size_t size = 1 + draw(4);
      repair.Push(std::string_view(bytes).substr(pos, size), out);
      ASSERT_EQ(ValidUtf8Prefix(out), out.size());
      pos += size;
    }
    repair.Finish(out);
    ASSERT_EQ(out, RepairUtf8(bytes));
  }
}

// The path that leaves most code points alone, against the one that takes all apart first.
TEST(Unicode, NormalFormsAgreeWithEachOther) {
  std::string all;
  uint64_t counter = 0;
  for (char32_t cp = 1; cp < 0x20000; ++cp) {
    if (cp >= 0xD800 && cp < 0xE000) continue;
    all += Encoded(cp);
    if (cp % 3 == 0) all += Encoded(static_cast<char32_t>(0x300 + 0x6F * UniformAt(3, 1, counter++)));
    if (cp % 7 == 0) all += Encoded(static_cast<char32_t>(0x1100 + 0xFF * UniformAt(3, 1, counter++)));
  }
  const std::string nfd = ToNormalForm(all, NormalForm::kNfd);
  const std::string nfc = ToNormalForm(all, NormalForm::kNfc);
  EXPECT_EQ(ToNormalForm(nfd, NormalForm::kNfc), nfc);
  EXPECT_EQ(ToNormalForm(nfc, NormalForm::kNfd), nfd);
  EXPECT_EQ(ToNormalForm(nfc, NormalForm::kNfc), nfc);
  const std::string nfkd = ToNormalForm(all, NormalForm::kNfkd);
  EXPECT_EQ(ToNormalForm(nfkd, NormalForm::kNfkc), ToNormalForm(all, NormalForm::kNfkc));
}

TEST(Unicode, LongRunsOfMarksAreSortedQuickly) {
  std::string text = "a";
  for (int i = 0; i < 200'000; ++i) text += i % 2 == 0 ? "\xCC\x81" : "\xCC\xA3";  // acute above, dot below
  const std::string nfc = ToNormalForm(text, NormalForm::kNfc);
  EXPECT_TRUE(nfc.starts_with("\xE1\xBA\xA1\xCC\xA3"));  // a with dot below, then the other dots
  EXPECT_TRUE(nfc.ends_with("\xCC\x81"));
}

}  // namespace
}  // namespace cadre::text
