// Generated from the properties that Oniguruma 6.9.10 has (Unicode 16) less those of PCRE2 10.42 (Unicode
// 14).
#include "text/unicode_additions.h"

#include <algorithm>
#include <array>
#include <iterator>

#include "base/format.h"
#include "text/utf8.h"

namespace cadre::text {
namespace {

struct Range {
  char32_t first, last;
};
constexpr Range kLu[] = {
    {0x1C89, 0x1C89}, {0xA7CB, 0xA7CC}, {0xA7DA, 0xA7DA}, {0xA7DC, 0xA7DC}, {0x10D50, 0x10D65}};
constexpr Range kLl[] = {
    {0x1C8A, 0x1C8A}, {0xA7CD, 0xA7CD}, {0xA7DB, 0xA7DB}, {0x10D70, 0x10D85}, {0x1DF25, 0x1DF2A}};
constexpr Range kLm[] = {{0x10D4E, 0x10D4E}, {0x10D6F, 0x10D6F}, {0x16D40, 0x16D42},
                         {0x16D6B, 0x16D6C}, {0x1E030, 0x1E06D}, {0x1E4EB, 0x1E4EB}};
constexpr Range kLo[] = {
    {0x105C0, 0x105F3}, {0x10D4A, 0x10D4D}, {0x10D4F, 0x10D4F}, {0x10EC2, 0x10EC4}, {0x1123F, 0x11240},
    {0x11380, 0x11389}, {0x1138B, 0x1138B}, {0x1138E, 0x1138E}, {0x11390, 0x113B5}, {0x113B7, 0x113B7},
    {0x113D1, 0x113D1}, {0x113D3, 0x113D3}, {0x11BC0, 0x11BE0}, {0x11F02, 0x11F02}, {0x11F04, 0x11F10},
    {0x11F12, 0x11F33}, {0x1342F, 0x1342F}, {0x13441, 0x13446}, {0x13460, 0x143FA}, {0x16100, 0x1611D},
    {0x16D43, 0x16D6A}, {0x18CFF, 0x18CFF}, {0x1B132, 0x1B132}, {0x1B155, 0x1B155}, {0x1E4D0, 0x1E4EA},
    {0x1E5D0, 0x1E5ED}, {0x1E5F0, 0x1E5F0}, {0x2B739, 0x2B739}, {0x2EBF0, 0x2EE5D}, {0x31350, 0x323AF}};
constexpr Range kMn[] = {{0x897, 0x897},     {0xECE, 0xECE},     {0x10D69, 0x10D6D}, {0x10EFC, 0x10EFF},
                         {0x11241, 0x11241}, {0x113BB, 0x113C0}, {0x113CE, 0x113CE}, {0x113D0, 0x113D0},
                         {0x113D2, 0x113D2}, {0x113E1, 0x113E2}, {0x11F00, 0x11F01}, {0x11F36, 0x11F3A},
                         {0x11F40, 0x11F40}, {0x11F42, 0x11F42}, {0x11F5A, 0x11F5A}, {0x13440, 0x13440},
                         {0x13447, 0x13455}, {0x1611E, 0x16129}, {0x1612D, 0x1612F}, {0x1E08F, 0x1E08F},
                         {0x1E4EC, 0x1E4EF}, {0x1E5EE, 0x1E5EF}};
constexpr Range kMc[] = {{0xCF3, 0xCF3},     {0x113B8, 0x113BA}, {0x113C2, 0x113C2}, {0x113C5, 0x113C5},
                         {0x113C7, 0x113CA}, {0x113CC, 0x113CD}, {0x113CF, 0x113CF}, {0x1171E, 0x1171E},
                         {0x11F03, 0x11F03}, {0x11F34, 0x11F35}, {0x11F3E, 0x11F3F}, {0x11F41, 0x11F41},
                         {0x1612A, 0x1612C}};
constexpr Range kNd[] = {{0x10D40, 0x10D49}, {0x116D0, 0x116E3}, {0x11BF0, 0x11BF9},
                         {0x11F50, 0x11F59}, {0x16130, 0x16139}, {0x16D70, 0x16D79},
                         {0x1CCF0, 0x1CCF9}, {0x1E4F0, 0x1E4F9}, {0x1E5F1, 0x1E5FA}};
constexpr Range kNo[] = {{0x1D2C0, 0x1D2D3}};
constexpr Range kPd[] = {{0x10D6E, 0x10D6E}};
constexpr Range kPo[] = {{0x1B4E, 0x1B4F},   {0x1B7F, 0x1B7F},   {0x113D4, 0x113D5},
                         {0x113D7, 0x113D8}, {0x11B00, 0x11B09}, {0x11BE1, 0x11BE1},
                         {0x11F43, 0x11F4F}, {0x16D6D, 0x16D6F}, {0x1E5FF, 0x1E5FF}};
constexpr Range kSm[] = {{0x10D8E, 0x10D8F}};
constexpr Range kSo[] = {{0x2427, 0x2429},   {0x2FFC, 0x2FFF},   {0x31E4, 0x31E5},   {0x31EF, 0x31EF},
                         {0x1CC00, 0x1CCEF}, {0x1CD00, 0x1CEB3}, {0x1F6DC, 0x1F6DC}, {0x1F774, 0x1F776},
                         {0x1F77B, 0x1F77F}, {0x1F7D9, 0x1F7D9}, {0x1F8B2, 0x1F8BB}, {0x1F8C0, 0x1F8C1},
                         {0x1FA75, 0x1FA77}, {0x1FA87, 0x1FA89}, {0x1FA8F, 0x1FA8F}, {0x1FAAD, 0x1FAAF},
                         {0x1FABB, 0x1FABF}, {0x1FAC6, 0x1FAC6}, {0x1FACE, 0x1FACF}, {0x1FADA, 0x1FADC},
                         {0x1FADF, 0x1FADF}, {0x1FAE8, 0x1FAE9}, {0x1FAF7, 0x1FAF8}, {0x1FBCB, 0x1FBEF}};
constexpr Range kCf[] = {{0x13439, 0x1343F}};
constexpr Range kAlphabetic[] = {
    {0x363, 0x36F},     {0x897, 0x897},     {0xC04, 0xC04},     {0xCF3, 0xCF3},     {0xF82, 0xF83},
    {0x1C89, 0x1C8A},   {0x1DD3, 0x1DE6},   {0xA7CB, 0xA7CD},   {0xA7DA, 0xA7DC},   {0x105C0, 0x105F3},
    {0x10D4A, 0x10D65}, {0x10D69, 0x10D69}, {0x10D6F, 0x10D85}, {0x10EC2, 0x10EC4}, {0x10EFC, 0x10EFC},
    {0x11080, 0x11081}, {0x1123F, 0x11241}, {0x11380, 0x11389}, {0x1138B, 0x1138B}, {0x1138E, 0x1138E},
    {0x11390, 0x113B5}, {0x113B7, 0x113C0}, {0x113C2, 0x113C2}, {0x113C5, 0x113C5}, {0x113C7, 0x113CA},
    {0x113CC, 0x113CD}, {0x113D1, 0x113D1}, {0x113D3, 0x113D3}, {0x11BC0, 0x11BE0}, {0x11F00, 0x11F10},
    {0x11F12, 0x11F3A}, {0x11F3E, 0x11F40}, {0x1342F, 0x1342F}, {0x13441, 0x13446}, {0x13460, 0x143FA},
    {0x16100, 0x1612E}, {0x16D40, 0x16D6C}, {0x18CFF, 0x18CFF}, {0x1B132, 0x1B132}, {0x1B155, 0x1B155},
    {0x1DF25, 0x1DF2A}, {0x1E030, 0x1E06D}, {0x1E08F, 0x1E08F}, {0x1E4D0, 0x1E4EB}, {0x1E5D0, 0x1E5ED},
    {0x1E5F0, 0x1E5F0}, {0x2B739, 0x2B739}, {0x2EBF0, 0x2EE5D}, {0x31350, 0x323AF}};
constexpr Range kUppercase[] = {
    {0x1C89, 0x1C89}, {0xA7CB, 0xA7CC}, {0xA7DA, 0xA7DA}, {0xA7DC, 0xA7DC}, {0x10D50, 0x10D65}};
constexpr Range kLowercase[] = {{0x10FC, 0x10FC},   {0x1C8A, 0x1C8A},   {0xA7CD, 0xA7CD},
                                {0xA7DB, 0xA7DB},   {0xA7F2, 0xA7F4},   {0xAB69, 0xAB69},
                                {0x10D70, 0x10D85}, {0x1DF25, 0x1DF2A}, {0x1E030, 0x1E06D}};
constexpr Range kHan[] = {{0x2B739, 0x2B739}, {0x2EBF0, 0x2EE5D}, {0x31350, 0x323AF}};
constexpr Range kHiragana[] = {{0x1B132, 0x1B132}};

struct Property {
  std::string_view name;
  const Range* begin;
  const Range* end;
};
constexpr Property kProperties[] = {
    {"Lu", std::begin(kLu), std::end(kLu)},
    {"Ll", std::begin(kLl), std::end(kLl)},
    {"Lm", std::begin(kLm), std::end(kLm)},
    {"Lo", std::begin(kLo), std::end(kLo)},
    {"Mn", std::begin(kMn), std::end(kMn)},
    {"Mc", std::begin(kMc), std::end(kMc)},
    {"Nd", std::begin(kNd), std::end(kNd)},
    {"No", std::begin(kNo), std::end(kNo)},
    {"Pd", std::begin(kPd), std::end(kPd)},
    {"Po", std::begin(kPo), std::end(kPo)},
    {"Sm", std::begin(kSm), std::end(kSm)},
    {"So", std::begin(kSo), std::end(kSo)},
    {"Cf", std::begin(kCf), std::end(kCf)},
    {"Alphabetic", std::begin(kAlphabetic), std::end(kAlphabetic)},
    {"Uppercase", std::begin(kUppercase), std::end(kUppercase)},
    {"Lowercase", std::begin(kLowercase), std::end(kLowercase)},
    {"sc:Han", std::begin(kHan), std::end(kHan)},
    {"sc:Hiragana", std::begin(kHiragana), std::end(kHiragana)},
};

bool IsCategory(std::string_view name) {
  return name.size() <= 2;
}

// One bit for each 64 code points of the first planes: set where a table has something.
struct Blocks {
  static constexpr size_t kBlocks = 0x20000 / 64;
  std::array<bool, kBlocks> used{};

  Blocks() {
    for (const Property& property : kProperties) {
      for (const Range* range = property.begin; range != property.end; ++range) {
        for (char32_t cp = range->first & ~63u; cp <= range->last && cp / 64 < kBlocks; cp += 64)
          used[cp / 64] = true;
      }
    }
  }
};

bool Contains(const Property& property, char32_t cp) {
  const Range* behind = std::upper_bound(property.begin, property.end, cp,
                                         [](char32_t c, const Range& range) { return c < range.first; });
  return behind != property.begin && cp <= (behind - 1)->last;
}

}  // namespace

std::string AddedRanges(std::string_view property) {
  std::string ranges;
  for (const Property& known : kProperties) {
    const bool is_part = property.size() == 1 && IsCategory(known.name) && known.name[0] == property[0];
    if (known.name != property && !is_part) continue;
    for (const Range* range = known.begin; range != known.end; ++range) {
      ranges += fmt::format("\\x{{{:x}}}-\\x{{{:x}}}", static_cast<uint32_t>(range->first),
                            static_cast<uint32_t>(range->last));
    }
  }
  return ranges;
}

bool IsAddedTo(char32_t cp, std::string_view property) {
  for (const Property& known : kProperties) {
    const bool is_part = property.size() == 1 && IsCategory(known.name) && known.name[0] == property[0];
    if ((known.name == property || is_part) && Contains(known, cp)) return true;
  }
  return false;
}

bool HasAddedPoint(std::string_view text) {
  static const Blocks blocks;
  for (size_t pos = 0; pos < text.size();) {
    if (static_cast<unsigned char>(text[pos]) < 0xC2) {
      ++pos;
      continue;
    }
    const char32_t cp = NextCodePoint(text, pos);
    if (cp / 64 < Blocks::kBlocks && !blocks.used[cp / 64]) continue;
    for (const Property& property : kProperties) {
      if (Contains(property, cp)) return true;
    }
  }
  return false;
}

}  // namespace cadre::text
