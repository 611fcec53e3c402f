#include "text/normalizer.h"

#include <utility>
#include <vector>

#include "text/byte_level.h"
#include "text/json_fields.h"
#include "text/regex.h"
#include "text/unicode.h"
#include "text/utf8.h"

namespace cadre::text {
namespace {

constexpr int kMaxDepth = 16;

class SequenceNormalizer : public Normalizer {
 public:
  std::vector<std::unique_ptr<Normalizer>> parts;
  void Apply(Normalized& text) const override {
    for (const auto& part : parts) part->Apply(text);
  }
  double growth() const override {
    double product = 1;
    for (const auto& part : parts) product *= part->growth();
    return product;
  }
  size_t num_passes() const override {
    size_t sum = 0;
    for (const auto& part : parts) sum += part->num_passes();
    return sum;
  }
};

class NormalFormNormalizer : public Normalizer {
 public:
  explicit NormalFormNormalizer(NormalForm form) : form_(form) {}
  void Apply(Normalized& text) const override { text.text = ToNormalForm(text.text, form_); }
  // Unicode Standard Annex 15, section 10: the most that UTF-8 grows.
  double growth() const override { return form_ == NormalForm::kNfc || form_ == NormalForm::kNfd ? 3 : 11; }

 private:
  NormalForm form_;
};

// Rewrites each code point by itself.
class PointNormalizer : public Normalizer {
 public:
  using Map = void (*)(char32_t cp, std::string& out);
  explicit PointNormalizer(Map map) : map_(map) {}
  double growth() const override { return 2; }  // letters of bytes; a space on both sides; other lower case

  void Apply(Normalized& text) const override {
    std::string out;
    out.reserve(text.text.size());
    for (size_t pos = 0; pos < text.text.size();) {
      map_(NextCodePoint(text.text, pos), out);
      if (out.empty()) text.lost_start = true;
    }
    text.text = std::move(out);
  }

 private:
  Map map_;
};

void DropMarks(char32_t cp, std::string& out) {
  if (!IsMark(cp)) AppendUtf8(out, cp);
}

void DropNonspacingMarks(char32_t cp, std::string& out) {
  if (!IsNonspacingMark(cp)) AppendUtf8(out, cp);
}

// Source: nmt_nfkc of SentencePiece, as the Nmt normalizer restates it.
void CleanForTranslation(char32_t cp, std::string& out) {
  if ((cp >= 1 && cp <= 8) || cp == 0xB || (cp >= 0xE && cp <= 0x1F) || cp == 0x7F || cp == 0x8F ||
      cp == 0x9F)
    return;
  const bool is_space = cp == 9 || cp == 0xA || cp == 0xC || cp == 0xD || cp == 0x1680 ||
                        (cp >= 0x200B && cp <= 0x200F) || cp == 0x2028 || cp == 0x2029 || cp == 0x2581 ||
                        cp == 0xFEFF || cp == 0xFFFD;
  AppendUtf8(out, is_space ? U' ' : cp);
}

void CleanForBert(char32_t cp, std::string& out) {
  const bool is_plain_space = cp == '\t' || cp == '\n' || cp == '\r';
  if (cp == 0 || cp == 0xFFFD || (!is_plain_space && IsOther(cp))) return;
  AppendUtf8(out, IsWhitespace(cp) ? U' ' : cp);
}

// Blocks of CJK ideographs, as BERT's own list has them.
void PadIdeographs(char32_t cp, std::string& out) {
  const bool is_ideograph = (cp >= 0x4E00 && cp <= 0x9FFF) || (cp >= 0x3400 && cp <= 0x4DBF) ||
                            (cp >= 0x20000 && cp <= 0x2A6DF) || (cp >= 0x2A700 && cp <= 0x2B73F) ||
                            (cp >= 0x2B740 && cp <= 0x2B81F) || (cp >= 0x2B920 && cp <= 0x2CEAF) ||
                            (cp >= 0xF900 && cp <= 0xFAFF) || (cp >= 0x2F800 && cp <= 0x2FA1F);
  if (is_ideograph) out += ' ';
  AppendUtf8(out, cp);
  if (is_ideograph) out += ' ';
}

void Lower(char32_t cp, std::string& out) {
  AppendLowercase(out, cp);
}

void ToLetters(char32_t cp, std::string& out) {
  std::string bytes;
  AppendUtf8(bytes, cp);
  for (const char b : bytes) AppendUtf8(out, ByteLetters()[static_cast<unsigned char>(b)]);
}

class StripNormalizer : public Normalizer {
 public:
  StripNormalizer(bool left, bool right) : left_(left), right_(right) {}
  double growth() const override { return 1; }

  void Apply(Normalized& text) const override {
    size_t begin = 0;
    size_t end = 0;
    bool begun = false;
    for (size_t pos = 0; pos < text.text.size();) {
      const size_t start = pos;
      if (IsWhitespace(NextCodePoint(text.text, pos))) continue;
      if (!begun) begin = start;
      begun = true;
      end = pos;
    }
    if (!begun) begin = left_ ? text.text.size() : 0;
    if (!left_) begin = 0;
    if (!right_) end = text.text.size();
    if (begin > 0) text.lost_start = true;
    text.text = text.text.substr(begin, end > begin ? end - begin : 0);
  }

 private:
  bool left_, right_;
};

class PrependNormalizer : public Normalizer {
 public:
  explicit PrependNormalizer(std::string text) : prepend_(std::move(text)) {}
  void Apply(Normalized& text) const override {
    if (!text.text.empty()) text.text.insert(0, prepend_);
  }
  double growth() const override { return 1.0 + static_cast<double>(prepend_.size()); }

 private:
  std::string prepend_;
};

class ReplaceNormalizer : public Normalizer {
 public:
  ReplaceNormalizer(Pattern pattern, std::string content)
      : pattern_(std::move(pattern)), content_(std::move(content)) {}

  double growth() const override { return GrowthOfReplace(pattern_, content_); }

  void Apply(Normalized& text) const override {
    std::vector<Span> matches;
    pattern_.FindAll(text.text, matches);
    if (matches.empty()) return;
    std::string out;
    size_t done = 0;
    for (const Span& match : matches) {
      out.append(text.text, done, match.begin - done);
      out += content_;
      done = match.end;
      // What replaces several characters counts as the last of them.
      if (out.empty() || (match.begin == 0 && match.end > Utf8Length(text.text[0]))) text.lost_start = true;
    }
    out.append(text.text, done);
    text.text = std::move(out);
  }

 private:
  Pattern pattern_;
  std::string content_;
};

std::unique_ptr<Normalizer> OfPoints(PointNormalizer::Map map) {
  return std::make_unique<PointNormalizer>(map);
}
std::unique_ptr<Normalizer> OfForm(NormalForm form) {
  return std::make_unique<NormalFormNormalizer>(form);
}

Result<std::unique_ptr<Normalizer>> MakeBert(const Json& json, const std::string& where) {
  auto all = std::make_unique<SequenceNormalizer>();
  CADRE_ASSIGN(const bool clean, BoolField(json, "clean_text", true, where));
  CADRE_ASSIGN(const bool pad, BoolField(json, "handle_chinese_chars", true, where));
  CADRE_ASSIGN(const bool lower, BoolField(json, "lowercase", true, where));
  CADRE_ASSIGN(const bool strip, BoolField(json, "strip_accents", lower, where));
  if (clean) all->parts.push_back(OfPoints(CleanForBert));
  if (pad) all->parts.push_back(OfPoints(PadIdeographs));
  if (strip) {
    all->parts.push_back(OfForm(NormalForm::kNfd));
    all->parts.push_back(OfPoints(DropNonspacingMarks));
  }
  if (lower) all->parts.push_back(OfPoints(Lower));
  return all;
}

Result<std::unique_ptr<Normalizer>> MakeSequence(const Json& json, const std::string& where, int depth) {
  CADRE_ASSIGN(const Json* parts, ArrayField(json, "normalizers", where));
  auto all = std::make_unique<SequenceNormalizer>();
  for (size_t i = 0; i < parts->AsArray().size(); ++i) {
    CADRE_ASSIGN(auto part,
                 MakeNormalizer(parts->AsArray()[i], fmt::format("{}.normalizers[{}]", where, i), depth + 1));
    if (part != nullptr) all->parts.push_back(std::move(part));
  }
  return all;
}

}  // namespace

Result<std::unique_ptr<Normalizer>> MakeNormalizer(const Json& json, const std::string& where, int depth) {
  if (json.is_null()) return nullptr;
  if (depth > kMaxDepth) return Fail(Code::kInvalidArgument, "{}: nested too deep", where);
  CADRE_ASSIGN(const std::string type, TypeOf(json, where));
  if (type == "Sequence") return MakeSequence(json, where, depth);
  if (type == "NFC") return OfForm(NormalForm::kNfc);
  if (type == "NFD") return OfForm(NormalForm::kNfd);
  if (type == "NFKC") return OfForm(NormalForm::kNfkc);
  if (type == "NFKD") return OfForm(NormalForm::kNfkd);
  if (type == "Lowercase") return OfPoints(Lower);
  if (type == "StripAccents") return OfPoints(DropMarks);
  if (type == "Nmt") return OfPoints(CleanForTranslation);
  if (type == "ByteLevel") return OfPoints(ToLetters);
  if (type == "BertNormalizer") return MakeBert(json, where);
  if (type == "Precompiled") return MakePrecompiled(json, where);
  if (type == "Strip") {
    CADRE_ASSIGN(const bool left, BoolField(json, "strip_left", true, where));
    CADRE_ASSIGN(const bool right, BoolField(json, "strip_right", true, where));
    return std::make_unique<StripNormalizer>(left, right);
  }
  if (type == "Prepend") {
    CADRE_ASSIGN(std::string text, TextField(json, "prepend", "", where));
    return std::make_unique<PrependNormalizer>(std::move(text));
  }
  if (type == "Replace") {
    const Json* json_pattern = json.Find("pattern");
    CADRE_ASSIGN(Pattern pattern,
                 Pattern::FromJson(json_pattern != nullptr ? *json_pattern : Json(), where + ".pattern"));
    CADRE_ASSIGN(std::string content, TextField(json, "content", "", where));
    return std::make_unique<ReplaceNormalizer>(std::move(pattern), std::move(content));
  }
  return Fail(Code::kUnsupported,
              "{}.type \"{}\" is not known; Cadre knows Sequence, NFC, NFD, NFKC, NFKD, Lowercase, Strip, "
              "StripAccents, "
              "Prepend, Replace, Nmt, Precompiled, ByteLevel and BertNormalizer",
              where, type);
}

}  // namespace cadre::text
