#include "text/pre_tokenizer.h"

#include <algorithm>
#include <functional>
#include <iterator>
#include <utility>

#include "text/byte_level.h"
#include "text/json_fields.h"
#include "text/normalizer.h"
#include "text/regex.h"
#include "text/splitter.h"
#include "text/unicode.h"
#include "text/utf8.h"

namespace cadre::text {
namespace {

constexpr int kMaxDepth = 16;

// GPT-2's pattern, which ByteLevel has built in.
constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// Cuts by the matches of a pattern.
class PatternSplit : public PreTokenizer {
 public:
  PatternSplit(Pattern pattern, SplitBehavior behavior, bool invert)
      : pattern_(std::move(pattern)), splitter_(behavior, invert) {}

  void Apply(PieceList& list) const override {
    std::vector<Span> matches;
    splitter_.Split(list, [&](std::string_view text) -> const std::vector<Span>& {
      matches.clear();
      pattern_.FindAll(text, matches);
      return matches;
    });
  }

 private:
  Pattern pattern_;
  Splitter splitter_;
};

// Cuts at code points of a kind, each a match of its own.
class PointSplit : public PreTokenizer {
 public:
  using Is = std::function<bool(char32_t)>;
  PointSplit(Is is, SplitBehavior behavior) : is_(std::move(is)), splitter_(behavior, false) {}

  void Apply(PieceList& list) const override {
    std::vector<Span> matches;
    splitter_.Split(list, [&](std::string_view text) -> const std::vector<Span>& {
      matches.clear();
      for (size_t pos = 0; pos < text.size();) {
        const size_t start = pos;
        if (is_(NextCodePoint(text, pos))) matches.push_back({start, pos});
      }
      return matches;
    });
  }

 private:
  Is is_;
  Splitter splitter_;
};

// Pieces of so many code points.
class FixedLength : public PreTokenizer {
 public:
  explicit FixedLength(size_t length) : length_(length) {}

  void Apply(PieceList& list) const override {
    std::vector<Span> matches;
    const Splitter splitter(SplitBehavior::kIsolated, false);
    splitter.Split(list, [&](std::string_view text) -> const std::vector<Span>& {
      matches.clear();
      for (size_t pos = 0; pos < text.size();) {
        const size_t start = pos;
        for (size_t i = 0; i < length_ && pos < text.size(); ++i) pos += Utf8Length(text[pos]);
        matches.push_back({start, pos});
      }
      return matches;
    });
  }

 private:
  size_t length_;
};

// Puts a space before every piece that has none.
class PrefixSpace : public PreTokenizer {
 public:
  double growth() const override { return 2; }
  void Apply(PieceList& list) const override {
    for (Piece& piece : list.pieces) {
      if (!piece.text.starts_with(' ')) piece.text = list.rewritten.emplace_back(" ").append(piece.text);
    }
  }
};

class Letters : public PreTokenizer {
 public:
  double growth() const override { return 2; }
  void Apply(PieceList& list) const override {
    for (Piece& piece : list.pieces) piece.text = list.rewritten.emplace_back(BytesToLetters(piece.text));
  }
};

// SentencePiece's way with spaces: they become a visible mark, and a text may get one in front.
class Metaspace : public PreTokenizer {
 public:
  enum class Prepend { kFirst, kAlways, kNever };
  Metaspace(std::string mark, Prepend prepend, bool split)
      : mark_(std::move(mark)),
        prepend_(prepend),
        split_(split),
        splitter_(SplitBehavior::kMergedWithNext, false) {}

  double growth() const override { return 1 + static_cast<double>(mark_.size()); }

  void Apply(PieceList& list) const override {
    for (Piece& piece : list.pieces) Mark(piece, list);
    if (!split_) return;
    std::vector<Span> matches;
    splitter_.Split(list, [&](std::string_view text) -> const std::vector<Span>& {
      matches.clear();
      for (size_t at = text.find(mark_); at != text.npos; at = text.find(mark_, at + mark_.size())) {
        matches.push_back({at, at + mark_.size()});
      }
      return matches;
    });
  }

 private:
  void Mark(Piece& piece, PieceList& list) const {
    const bool begins = piece.text.starts_with(mark_) || piece.text.starts_with(' ');
    const bool prepends =
        !begins && (prepend_ == Prepend::kAlways || (prepend_ == Prepend::kFirst && piece.at_start));
    if (!prepends && piece.text.find(' ') == piece.text.npos) return;
    std::string& text = list.rewritten.emplace_back(prepends ? mark_ : "");
    text.reserve(piece.text.size() + 64);
    size_t done = 0;
    for (size_t space = piece.text.find(' '); space != piece.text.npos; space = piece.text.find(' ', done)) {
      text.append(piece.text, done, space - done);
      text += mark_;
      done = space + 1;
    }
    text.append(piece.text, done);
    piece.text = text;
  }

  std::string mark_;
  Prepend prepend_;
  bool split_;
  Splitter splitter_;
};

Result<std::unique_ptr<PreTokenizer>> MakeMetaspace(const Json& json, const std::string& where) {
  CADRE_ASSIGN(const std::string mark, TextField(json, "replacement", "\xE2\x96\x81", where));
  if (!IsOnePoint(mark) || mark == " ") {
    return Fail(Code::kInvalidArgument, "{}.replacement must be one character other than a space", where);
  }
  CADRE_ASSIGN(std::string scheme, TextField(json, "prepend_scheme", "always", where));
  CADRE_ASSIGN(const bool prefix, BoolField(json, "add_prefix_space", true, where));
  CADRE_ASSIGN(const bool split, BoolField(json, "split", true, where));
  if (!prefix) {  // the older spelling
    if (json.Find("prepend_scheme") != nullptr && scheme != "never") {
      return Fail(Code::kInvalidArgument, "{}: add_prefix_space false and prepend_scheme \"{}\" contradict",
                  where, scheme);
    }
    scheme = "never";
  }
  if (scheme != "first" && scheme != "always" && scheme != "never") {
    return Fail(Code::kInvalidArgument, "{}.prepend_scheme \"{}\" must be first, always or never", where,
                scheme);
  }
  const auto prepend = scheme == "first"    ? Metaspace::Prepend::kFirst
                       : scheme == "always" ? Metaspace::Prepend::kAlways
                                            : Metaspace::Prepend::kNever;
  return std::make_unique<Metaspace>(mark, prepend, split);
}

Result<std::unique_ptr<PreTokenizer>> MakeSplit(const Json& json, const std::string& where) {
  const Json* json_pattern = json.Find("pattern");
  CADRE_ASSIGN(Pattern pattern,
               Pattern::FromJson(json_pattern != nullptr ? *json_pattern : Json(), where + ".pattern"));
  CADRE_ASSIGN(const std::string name, TextField(json, "behavior", "", where));
  CADRE_ASSIGN(const SplitBehavior behavior, ParseSplitBehavior(name, where));
  CADRE_ASSIGN(const bool invert, BoolField(json, "invert", false, where));
  return std::make_unique<PatternSplit>(std::move(pattern), behavior, invert);
}

std::unique_ptr<PreTokenizer> MakePattern(std::string_view regex, SplitBehavior behavior, bool invert) {
  auto pattern = Pattern::FromJson(Json(Json::Object{{"Regex", Json(regex)}}), "built in");
  return std::make_unique<PatternSplit>(std::move(*pattern), behavior, invert);
}

std::unique_ptr<PreTokenizer> MakePoints(PointSplit::Is is, SplitBehavior behavior) {
  return std::make_unique<PointSplit>(std::move(is), behavior);
}

bool IsAnyPunctuation(char32_t cp) {
  return IsAsciiPunctuation(cp) || IsPunctuation(cp);
}

// The types that make one step. Null (no error) if the type is not among them.
Result<std::unique_ptr<PreTokenizer>> MakeSimple(const std::string& type, const Json& json,
                                                 const std::string& where) {
  if (type == "Split") return MakeSplit(json, where);
  if (type == "Metaspace") return MakeMetaspace(json, where);
  if (type == "WhitespaceSplit") return MakePoints(IsWhitespace, SplitBehavior::kRemoved);
  if (type == "Whitespace") {  // Rust's \w has the two joiners as well
    return MakePattern("[\\w\\x{200c}\\x{200d}]+|[^\\w\\s\\x{200c}\\x{200d}]+", SplitBehavior::kRemoved,
                       true);
  }
  if (type == "Digits") {
    CADRE_ASSIGN(const bool single, BoolField(json, "individual_digits", false, where));
    return MakePoints(IsNumeric, single ? SplitBehavior::kIsolated : SplitBehavior::kContiguous);
  }
  if (type == "Punctuation") {
    CADRE_ASSIGN(const std::string name, TextField(json, "behavior", "Isolated", where));
    CADRE_ASSIGN(const SplitBehavior behavior, ParseSplitBehavior(name, where));
    return MakePoints(IsAnyPunctuation, behavior);
  }
  if (type == "CharDelimiterSplit") {
    CADRE_ASSIGN(const std::string text, TextField(json, "delimiter", "", where));
    if (!IsOnePoint(text)) return Fail(Code::kInvalidArgument, "{}.delimiter must be one character", where);
    size_t pos = 0;
    const char32_t delimiter = NextCodePoint(text, pos);
    return MakePoints([delimiter](char32_t cp) { return cp == delimiter; }, SplitBehavior::kRemoved);
  }
  if (type == "FixedLength") {
    CADRE_ASSIGN(const int64_t length, IntField(json, "length", 5, where));
    if (length < 1) return Fail(Code::kInvalidArgument, "{}.length must be 1 or more", where);
    return std::make_unique<FixedLength>(static_cast<size_t>(length));
  }
  return nullptr;
}

}  // namespace

Status PreTokenizers::Read(const Json& json) {
  if (json.is_null()) return {};
  CADRE_TRY(Add(json, "pre_tokenizer", 0));
  double growth = 1;
  for (const auto& step : steps_) growth *= step->growth();
  if (growth > kMaxGrowth || steps_.size() > kMaxPasses) {
    return Fail(Code::kUnsupported,
                "pre_tokenizer: {} steps that may let a text grow {}-fold; the most is {} and {}",
                steps_.size(), growth, kMaxPasses, kMaxGrowth);
  }
  ends_with_letters_ = ends_with_letters_ && num_letter_steps_ == 1;
  return {};
}

Status PreTokenizers::Add(const Json& json, const std::string& where, int depth) {
  if (depth > kMaxDepth) return Fail(Code::kInvalidArgument, "{}: nested too deep", where);
  CADRE_ASSIGN(const std::string type, TypeOf(json, where));
  if (type == "Sequence") {
    CADRE_ASSIGN(const Json* parts, ArrayField(json, "pretokenizers", where));
    for (size_t i = 0; i < parts->AsArray().size(); ++i) {
      CADRE_TRY(Add(parts->AsArray()[i], fmt::format("{}.pretokenizers[{}]", where, i), depth + 1));
    }
    return {};
  }
  ends_with_letters_ = false;
  if (type == "ByteLevel") {
    CADRE_ASSIGN(const bool prefix, BoolField(json, "add_prefix_space", true, where));
    CADRE_ASSIGN(const bool use_regex, BoolField(json, "use_regex", true, where));
    if (prefix) steps_.push_back(std::make_unique<PrefixSpace>());
    if (use_regex) steps_.push_back(MakePattern(kGpt2Pattern, SplitBehavior::kIsolated, false));
    steps_.push_back(std::make_unique<Letters>());
    ++num_letter_steps_;
    ends_with_letters_ = true;
    return {};
  }
  if (type == "BertPreTokenizer") {
    steps_.push_back(MakePoints(IsWhitespace, SplitBehavior::kRemoved));
    steps_.push_back(MakePoints(IsAnyPunctuation, SplitBehavior::kIsolated));
    return {};
  }
  CADRE_ASSIGN(auto step, MakeSimple(type, json, where));
  if (step == nullptr) {
    return Fail(Code::kUnsupported,
                "{}.type \"{}\" is not known; Cadre knows Sequence, Split, ByteLevel, Metaspace, Digits, "
                "Punctuation, "
                "Whitespace, WhitespaceSplit, CharDelimiterSplit, FixedLength and BertPreTokenizer",
                where, type);
  }
  steps_.push_back(std::move(step));
  return {};
}

void PreTokenizers::KeepRawBytes() {
  if (ends_with_letters_) steps_.pop_back();
  ends_with_letters_ = false;
}

void PreTokenizers::Apply(PieceList& list) const {
  for (const auto& step : steps_) step->Apply(list);
}

}  // namespace cadre::text
