#include "text/jinja_lexer.h"

#include <charconv>
#include <cstdlib>

#include "text/jinja_text.h"

namespace cadre::jinja {
namespace {

struct Operator {
  std::string_view text;
  Tok type;
};

// Longest first: the lexer takes the first that fits.
constexpr Operator kOperators[] = {
    {"//", Tok::kFloorDiv}, {"**", Tok::kPow},     {"==", Tok::kEq},    {"!=", Tok::kNe},
    {">=", Tok::kGe},       {"<=", Tok::kLe},      {"+", Tok::kAdd},    {"-", Tok::kSub},
    {"/", Tok::kDiv},       {"*", Tok::kMul},      {"%", Tok::kMod},    {"~", Tok::kTilde},
    {"[", Tok::kLBracket},  {"]", Tok::kRBracket}, {"(", Tok::kLParen}, {")", Tok::kRParen},
    {"{", Tok::kLBrace},    {"}", Tok::kRBrace},   {">", Tok::kGt},     {"<", Tok::kLt},
    {"=", Tok::kAssign},    {".", Tok::kDot},      {":", Tok::kColon},  {"|", Tok::kPipe},
    {",", Tok::kComma},     {";", Tok::kSemicolon}};

bool IsAsciiDigit(char c) {
  return c >= '0' && c <= '9';
}

std::string NormalizeNewlines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      out += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      out += source[i];
    }
  }
  if (out.ends_with('\n')) out.pop_back();  // keep_trailing_newline is off
  return out;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(source) {}

  Result<std::vector<Token>> Run() {
    while (pos_ < source_.size()) CADRE_TRY(Root());
    Add(Tok::kEof);
    return std::move(tokens_);
  }

 private:
  enum class Tag { kBlock, kVariable, kComment, kRaw };

  char At(size_t pos) const { return pos < source_.size() ? source_[pos] : '\0'; }
  bool Has(size_t pos, std::string_view text) const { return source_.substr(pos).starts_with(text); }
  size_t SkipSpace(size_t pos) const {
    while (pos < source_.size()) {
      size_t n = 0;
      if (!IsSpace(CharAt(source_, pos, &n))) break;
      pos += n;
    }
    return pos;
  }
  void Add(Tok type, std::string text = {}) { tokens_.push_back({type, line_, std::move(text), 0, 0}); }
  /// Moves on, counting lines.
  void Advance(size_t to) {
    for (; pos_ < to; ++pos_) line_ += source_[pos_] == '\n';
  }
  std::unexpected<Error> Wrong(std::string_view what) const {
    return Fail(Code::kInvalidArgument, "chat template, line {}: {}", line_, what);
  }

  // `{%- raw -%}`: where it ends, or npos if the tag at `pos` is another.
  size_t RawBegin(size_t pos) const {
    pos += 2;
    if (At(pos) == '-' || At(pos) == '+') ++pos;
    pos = SkipSpace(pos);
    if (!Has(pos, "raw")) return std::string_view::npos;
    pos = SkipSpace(pos + 3);
    if (Has(pos, "-%}")) return SkipSpace(pos + 3);
    return Has(pos, "%}") ? pos + 2 : std::string_view::npos;
  }
  // The same for `{% endraw %}`, which trims as every block end does.
  size_t RawEnd(size_t pos) const {
    pos += 2;
    if (At(pos) == '-' || At(pos) == '+') ++pos;
    pos = SkipSpace(pos);
    if (!Has(pos, "endraw")) return std::string_view::npos;
    return BlockEnd(SkipSpace(pos + 6));
  }
  // Where the block end at `pos` leaves off: `+%}`, `-%}` and space, `%}` and a newline; npos if there is
  // none.
  size_t BlockEnd(size_t pos) const {
    if (Has(pos, "+%}")) return pos + 3;
    if (Has(pos, "-%}")) return SkipSpace(pos + 3);
    if (!Has(pos, "%}")) return std::string_view::npos;
    return pos + 2 + (At(pos + 2) == '\n' ? 1 : 0);
  }

  // Emits the text before a tag, stripped as the tag's sign says.
  void Data(size_t end, char sign, bool may_lstrip) {
    std::string_view text = source_.substr(pos_, end - pos_);
    if (sign == '-') {
      text = Strip(text, nullptr, false, true);
    } else if (sign != '+' && may_lstrip) {
      const size_t newline = text.rfind('\n');
      const size_t line_begin = newline == std::string_view::npos ? 0 : newline + 1;
      if ((line_begin > 0 || line_starting_) &&
          Strip(text.substr(line_begin), nullptr, true, false).empty()) {
        text = text.substr(0, line_begin);
      }
    }
    if (!text.empty()) Add(Tok::kData, std::string(text));
    Advance(end);
  }

  Status Root() {
    size_t at = pos_;
    Tag tag = Tag::kBlock;
    size_t raw_end = std::string_view::npos;
    for (;; ++at) {
      at = source_.find('{', at);
      if (at == std::string_view::npos || at + 1 >= source_.size()) {
        Add(Tok::kData, std::string(source_.substr(pos_)));
        Advance(source_.size());
        return {};
      }
      const char next = source_[at + 1];
      if (next != '%' && next != '{' && next != '#') continue;
      tag = next == '%' ? Tag::kBlock : next == '{' ? Tag::kVariable : Tag::kComment;
      if (tag == Tag::kBlock) raw_end = RawBegin(at);
      if (raw_end != std::string_view::npos) tag = Tag::kRaw;
      break;
    }
    const char sign = At(at + 2) == '-' || At(at + 2) == '+' ? At(at + 2) : '\0';
    Data(at, sign, tag != Tag::kVariable);
    const size_t body = at + 2 + (sign != '\0' ? 1 : 0);
    switch (tag) {
      case Tag::kRaw:
        Advance(raw_end);
        return Raw();
      case Tag::kComment:
        Advance(body);
        return Comment();
      case Tag::kBlock:
        Add(Tok::kBlockBegin);
        break;
      case Tag::kVariable:
        Add(Tok::kVariableBegin);
        break;
    }
    Advance(body);
    return Expression(tag == Tag::kBlock);
  }

  void EndTag(size_t end) {
    line_starting_ = end > 0 && source_[end - 1] == '\n';
    Advance(end);
  }

  Status Comment() {
    const size_t close = source_.find("#}", pos_);
    if (close == std::string_view::npos) {
      // Jinja minds only if something follows.
      if (pos_ < source_.size()) return Wrong("Missing end of comment tag");
      return {};
    }
    size_t end = close + 2;
    if (close > pos_ && source_[close - 1] == '-') {
      end = SkipSpace(end);
    } else if (!(close > pos_ && source_[close - 1] == '+') && At(end) == '\n') {
      ++end;
    }
    EndTag(end);
    return {};
  }

  Status Raw() {
    line_starting_ = source_[pos_ - 1] == '\n';
    for (size_t at = pos_;; ++at) {
      at = source_.find("{%", at);
      if (at == std::string_view::npos) {
        if (pos_ < source_.size()) return Wrong("Missing end of raw directive");
        return {};
      }
      const size_t end = RawEnd(at);
      if (end == std::string_view::npos) continue;
      const char sign = At(at + 2) == '-' || At(at + 2) == '+' ? At(at + 2) : '\0';
      Data(at, sign, true);
      EndTag(end);
      return {};
    }
  }

  // Tokens up to the end of the tag. Inside brackets an end looks like operators, so it ends nothing there.
  Status Expression(bool is_block) {
    std::string closing;
    while (pos_ < source_.size()) {
      if (closing.empty()) {
        size_t end = std::string_view::npos;
        if (is_block) {
          end = BlockEnd(pos_);
        } else if (Has(pos_, "-}}")) {
          end = SkipSpace(pos_ + 3);
        } else if (Has(pos_, "}}")) {
          end = pos_ + 2;
        }
        if (end != std::string_view::npos) {
          Add(is_block ? Tok::kBlockEnd : Tok::kVariableEnd);
          EndTag(end);
          return {};
        }
      }
      if (const size_t end = SkipSpace(pos_); end != pos_) {
        Advance(end);
        continue;
      }
      if (IsAsciiDigit(source_[pos_])) {
        CADRE_TRY(Number());
      } else if (source_[pos_] == '\'' || source_[pos_] == '"') {
        CADRE_TRY(String());
      } else if (IsIdentifierStart(CharAt(source_, pos_, nullptr))) {
        Name();
      } else {
        CADRE_TRY(OperatorToken(closing));
      }
    }
    return {};
  }

  Status OperatorToken(std::string& closing) {
    for (const Operator& op : kOperators) {
      if (!Has(pos_, op.text)) continue;
      const char c = op.text[0];
      if (c == '(') closing += ')';
      if (c == '[') closing += ']';
      if (c == '{') closing += '}';
      if (c == ')' || c == ']' || c == '}') {
        if (closing.empty()) return Wrong(Format("unexpected '{}'", c));
        if (closing.back() != c) return Wrong(Format("unexpected '{}', expected '{}'", c, closing.back()));
        closing.pop_back();
      }
      Add(op.type);
      pos_ += op.text.size();
      return {};
    }
    return Wrong(Format("unexpected char '{}'", source_.substr(pos_, CharSize(source_, pos_))));
  }

  void Name() {
    const size_t begin = pos_;
    while (pos_ < source_.size()) {
      size_t n = 0;
      if (!IsIdentifierPart(CharAt(source_, pos_, &n))) break;
      pos_ += n;
    }
    Add(Tok::kName, std::string(source_.substr(begin, pos_ - begin)));
  }

  // Digits with single underscores between them; where they end.
  template <typename F>
  size_t Digits(size_t pos, F&& is_digit) const {
    while (is_digit(At(pos)) || (At(pos) == '_' && is_digit(At(pos + 1)))) ++pos;
    return pos;
  }

  Status Number() {
    const size_t begin = pos_;
    size_t end = Digits(begin, IsAsciiDigit);
    bool is_float = false;
    if (begin == 0 || source_[begin - 1] != '.') {
      if (At(end) == '.' && IsAsciiDigit(At(end + 1))) {
        is_float = true;
        end = Digits(end + 1, IsAsciiDigit);
      }
      if (At(end) == 'e' || At(end) == 'E') {
        const size_t digits = end + 1 + (At(end + 1) == '+' || At(end + 1) == '-' ? 1 : 0);
        if (IsAsciiDigit(At(digits))) {
          is_float = true;
          end = Digits(digits, IsAsciiDigit);
        }
      }
    }
    if (is_float) {
      Add(Tok::kFloat);
      tokens_.back().number = std::strtod(Plain(begin, end).c_str(), nullptr);
      pos_ = end;
      return {};
    }
    int base = 10;
    size_t digits = begin;
    if (At(begin) == '0') {
      const char kind = static_cast<char>(At(begin + 1) | 0x20);
      const int wanted = kind == 'b' ? 2 : kind == 'o' ? 8 : kind == 'x' ? 16 : 0;
      const auto is_digit = [wanted](char c) {
        if (wanted == 16 && ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')) return true;
        return c >= '0' && c < '0' + (wanted < 10 ? wanted : 10);
      };
      const size_t after = Digits(begin + 2, is_digit);
      if (wanted != 0 && after > begin + 2) {
        base = wanted;
        digits = begin + 2;
        end = after;
      } else {
        end = Digits(begin, [](char c) { return c == '0'; });  // as Python, 0 may not lead other digits
      }
    }
    const std::string text = Plain(digits, end);
    int64_t value = 0;
    if (std::from_chars(text.data(), text.data() + text.size(), value, base).ec != std::errc()) {
      return Wrong(Format("the integer {} does not fit 64 bits", text));
    }
    Add(Tok::kInteger);
    tokens_.back().integer = value;
    pos_ = end;
    return {};
  }

  std::string Plain(size_t begin, size_t end) const {
    std::string text;
    for (size_t i = begin; i < end; ++i) {
      if (source_[i] != '_') text += source_[i];
    }
    return text;
  }

  Status String() {
    const char quote = source_[pos_];
    size_t end = pos_ + 1;
    while (end < source_.size() && source_[end] != quote) end += source_[end] == '\\' ? 2 : 1;
    if (end >= source_.size()) return Wrong(Format("unexpected char '{}': the string does not end", quote));
    std::string text;
    CADRE_TRY(Unescape(source_.substr(pos_ + 1, end - pos_ - 1), text));
    Add(Tok::kString, std::move(text));
    Advance(end + 1);
    return {};
  }

  // As Python reads the escapes of a string literal.
  Status Unescape(std::string_view raw, std::string& out) const {
    for (size_t i = 0; i < raw.size(); ++i) {
      if (raw[i] != '\\') {
        out += raw[i];
        continue;
      }
      const char c = raw[++i];  // the lexer has seen that a character follows
      constexpr std::string_view kFrom = "abfnrtv\\'\"";
      constexpr std::string_view kTo = "\a\b\f\n\r\t\v\\'\"";
      if (const size_t simple = kFrom.find(c); simple != std::string_view::npos) {
        out += kTo[simple];
      } else if (c == '\n') {
        continue;
      } else if (c >= '0' && c <= '7') {
        char32_t code = 0;
        size_t n = 0;
        for (; n < 3 && i + n < raw.size() && raw[i + n] >= '0' && raw[i + n] <= '7'; ++n) {
          code = code * 8 + static_cast<char32_t>(raw[i + n] - '0');
        }
        AppendChar(out, code);
        i += n - 1;
      } else if (c == 'x' || c == 'u' || c == 'U') {
        char32_t code = 0;
        CADRE_TRY(Hex(raw, i, c == 'x' ? 2 : c == 'u' ? 4 : 8, code));
        if (code >= 0xD800 && code < 0xDC00 && raw.substr(i + 1).starts_with("\\u")) {
          char32_t low = 0;
          i += 2;
          CADRE_TRY(Hex(raw, i, 4, low));
          code =
              low >= 0xDC00 && low < 0xE000 ? 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00) : 0x110000;
        }
        if (code > 0x10FFFF || (code >= 0xD800 && code < 0xE000))
          return Wrong("illegal Unicode character in a string");
        AppendChar(out, code);
      } else if (c == 'N') {
        return Wrong("character names (\\N{...}) are not supported; write the character itself");
      } else {
        out += '\\';
        out += c;
      }
    }
    return {};
  }

  // Reads `n` hex digits after raw[i]; leaves i on the last.
  Status Hex(std::string_view raw, size_t& i, size_t n, char32_t& code) const {
    uint32_t value = 0;
    const std::string_view digits = raw.substr(i + 1, n);
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, 16);
    if (digits.size() != n || error != std::errc() || end != digits.data() + n) {
      return Wrong(Format("truncated \\{} escape in a string", raw[i]));
    }
    code = value;
    i += n;
    return {};
  }

  const std::string_view source_;
  size_t pos_ = 0;
  int line_ = 1;
  bool line_starting_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

const char* DescribeTok(Tok type) {
  switch (type) {
    case Tok::kData:
      return "template data / text";
    case Tok::kBlockBegin:
      return "begin of statement block";
    case Tok::kBlockEnd:
      return "end of statement block";
    case Tok::kVariableBegin:
      return "begin of print statement";
    case Tok::kVariableEnd:
      return "end of print statement";
    case Tok::kName:
      return "name";
    case Tok::kString:
      return "string";
    case Tok::kInteger:
      return "integer";
    case Tok::kFloat:
      return "float";
    case Tok::kEof:
      return "end of template";
    default:
      for (const Operator& op : kOperators) {
        if (op.type == type) return op.text.data();
      }
      return "operator";
  }
}

std::string DescribeToken(const Token& token) {
  return token.type == Tok::kName ? token.text : DescribeTok(token.type);
}

Result<std::vector<Token>> Tokenize(std::string_view source) {
  if (const size_t bad = FindInvalidUtf8(source); bad != std::string_view::npos) {
    return Fail(Code::kInvalidArgument, "chat template: not UTF-8 at byte {}", bad);
  }
  const std::string normalized = NormalizeNewlines(source);
  return Lexer(normalized).Run();
}

}  // namespace cadre::jinja
