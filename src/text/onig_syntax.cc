#include "text/onig_syntax.h"

#include <array>
#include <cstdint>
#include <utility>
#include <vector>

#include "base/format.h"
#include "text/onig_properties.h"
#include "text/utf8.h"

namespace cadre::text {
namespace {

constexpr int kMaxClassDepth = 32;

bool IsDigit(char c) {
  return c >= '0' && c <= '9';
}
bool IsLetter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}
int HexValue(char c) {
  return IsDigit(c)             ? c - '0'
         : c >= 'a' && c <= 'f' ? c - 'a' + 10
         : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                : -1;
}

// A set of code points on its way to PCRE2.
struct Set {
  bool negated = false;
  std::string items;  // between [ and ]

  std::string Text() const {
    if (items.empty()) return negated ? "[\\x{0}-\\x{10ffff}]" : "(?!)";
    return std::string(negated ? "[^" : "[") + items + "]";
  }
};

class Translator {
 public:
  Translator(std::string_view pattern, bool with_additions) : in_(pattern), with_additions_(with_additions) {}

  Result<std::string> Run() {
    groups_.push_back({0, 0});
    while (pos_ < in_.size()) CADRE_TRY(Step());
    out_.append(groups_.front().options, ')');
    return std::move(out_);
  }

 private:
  struct Group {
    size_t start;    // where it begins in out_
    size_t options;  // (?i) inside, each opened as (?i: and closed with the group
  };
  static constexpr size_t kNone = std::string::npos;

  bool At(std::string_view text) const { return in_.substr(pos_).starts_with(text); }
  char Peek(size_t ahead = 0) const { return pos_ + ahead < in_.size() ? in_[pos_ + ahead] : '\0'; }

  template <typename... Args>
  std::unexpected<Error> Stop(Code code, fmt::format_string<Args...> what, Args&&... args) const {
    return Fail(code, "regular expression '{}': {} at byte {}", in_,
                fmt::format(what, std::forward<Args>(args)...), pos_);
  }

  void BeginAtom() {
    atom_ = out_.size();
    quantified_ = false;
  }

  Status Step() {
    switch (in_[pos_]) {
      case '\\':
        return Escape();
      case '[': {
        BeginAtom();
        std::string set;
        CADRE_TRY(ReadClass(0, set));
        out_ += set;
        return {};
      }
      case '(':
        return OpenGroup();
      case ')':
        return CloseGroup();
      case '*':
      case '+':
      case '?':
        return Quantifier(std::string(1, in_[pos_]), 1, false);
      case '{':
        return Interval();
      case '|':
        atom_ = kNone;
        out_ += in_[pos_++];
        return {};
      case '^':
      case '$':
      case '.':
        BeginAtom();
        out_ += in_[pos_++];
        return {};
      default: {
        BeginAtom();
        const size_t length = Utf8Length(in_[pos_]);
        if (length == 1 && !IsLetter(in_[pos_]) && !IsDigit(in_[pos_])) {
          PutPoint(out_, static_cast<unsigned char>(in_[pos_]));
        } else {
          out_ += in_.substr(pos_, length);
        }
        pos_ += length;
        return {};
      }
    }
  }

  static void PutPoint(std::string& out, char32_t cp) {
    if (cp < 0x80 && (IsLetter(static_cast<char>(cp)) || IsDigit(static_cast<char>(cp)))) {
      out += static_cast<char>(cp);
    } else {
      out += fmt::format("\\x{{{:x}}}", static_cast<uint32_t>(cp));
    }
  }

  // --- groups
  // -------------------------------------------------------------------------------------------------

  Status OpenGroup() {
    if (At("(*")) return Stop(Code::kInvalidArgument, "nothing to repeat");
    if (At("(?#")) {
      const size_t end = in_.find(')', pos_);
      if (end == kNone) return Stop(Code::kInvalidArgument, "comment without an end");
      pos_ = end + 1;
      return {};
    }
    if (!At("(?")) {
      groups_.push_back({out_.size(), 0});
      out_ += '(';
      ++pos_;
      atom_ = kNone;
      return {};
    }
    for (const std::string_view head : {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>"}) {
      if (!At(head)) continue;
      groups_.push_back({out_.size(), 0});
      out_ += head;
      pos_ += head.size();
      atom_ = kNone;
      return {};
    }
    if (At("(?<")) {
      const size_t end = in_.find('>', pos_);
      if (end == kNone) return Stop(Code::kInvalidArgument, "group name without an end");
      groups_.push_back({out_.size(), 0});
      out_ += in_.substr(pos_, end + 1 - pos_);
      pos_ = end + 1;
      atom_ = kNone;
      return {};
    }
    return OpenOptions();
  }

  Status OpenOptions() {
    std::string options;
    size_t ahead = 2;
    for (; Peek(ahead) == 'i' || Peek(ahead) == 'm' || Peek(ahead) == '-'; ++ahead) {
      options += Peek(ahead) == 'm' ? 's' : Peek(ahead);
    }
    if (Peek(ahead) != ')' && Peek(ahead) != ':') {
      return Stop(Code::kUnsupported, "group '{}' is not supported", in_.substr(pos_, ahead + 1));
    }
    const bool is_group = Peek(ahead) == ':';
    if (is_group) {
      groups_.push_back({out_.size(), 0});
    } else {
      ++groups_.back().options;
    }
    out_ += "(?" + options + ":";
    pos_ += ahead + 1;
    atom_ = kNone;
    return {};
  }

  Status CloseGroup() {
    if (groups_.size() == 1) return Stop(Code::kInvalidArgument, "')' without '('");
    out_.append(groups_.back().options + 1, ')');
    atom_ = groups_.back().start;
    quantified_ = false;
    groups_.pop_back();
    ++pos_;
    return {};
  }

  // --- repeats
  // ------------------------------------------------------------------------------------------------

  Status Quantifier(std::string text, size_t length, bool is_interval) {
    if (atom_ == kNone) return Stop(Code::kInvalidArgument, "nothing to repeat");
    if (quantified_) {  // a repeat of a repeat
      if (++wraps_ > 64) return Stop(Code::kUnsupported, "too many repeats of repeats");
      out_.insert(atom_, "(?:");
      out_ += ')';
    }
    out_ += text;
    pos_ += length;
    quantified_ = true;
    const bool exact = is_interval && text.find(',') == kNone;
    if ((Peek() == '?' && !exact) || (Peek() == '+' && !is_interval)) out_ += in_[pos_++];
    return {};
  }

  Status Interval() {
    size_t ahead = 1;
    std::string low;
    std::string high;
    while (IsDigit(Peek(ahead))) low += Peek(ahead++);
    const bool comma = Peek(ahead) == ',';
    if (comma) {
      ++ahead;
      while (IsDigit(Peek(ahead))) high += Peek(ahead++);
    }
    if (Peek(ahead) != '}' || (low.empty() && high.empty())) {
      BeginAtom();
      out_ += "\\{";
      ++pos_;
      return {};
    }
    if (low.empty()) low = "0";
    return Quantifier("{" + low + (comma ? "," + high : "") + "}", ahead + 1, true);
  }

  // --- escapes
  // ------------------------------------------------------------------------------------------------

  Status Escape() {
    BeginAtom();
    const char c = Peek(1);
    const std::string word = Set{false, WordSet(false, with_additions_)}.Text();
    switch (c) {
      case 'b':
        out_ += "(?:(?<=" + word + ")(?!" + word + ")|(?<!" + word + ")(?=" + word + "))";
        pos_ += 2;
        return {};
      case 'B':
        out_ += "(?:(?<=" + word + ")(?=" + word + ")|(?<!" + word + ")(?!" + word + "))";
        pos_ += 2;
        return {};
      case 'A':
      case 'z':
      case 'Z':
      case 'G':
      case 'R':
      case 'X':
      case 'K':
        out_ += in_.substr(pos_, 2);
        pos_ += 2;
        return {};
      case 'k':
      case 'g':
      case 'y':
      case 'Y':
      case 'N':
      case 'O':
        return Stop(Code::kUnsupported, "'\\{}' is not supported", c);
      default:
        break;
    }
    if (c >= '1' && c <= '9') return BackReference();
    Set set;
    CADRE_ASSIGN(const bool is_set, ReadSetEscape(set, false));
    if (is_set) {
      out_ += set.Text();
      return {};
    }
    CADRE_ASSIGN(const char32_t cp, ReadPointEscape());
    PutPoint(out_, cp);
    return {};
  }

  Status BackReference() {
    if (IsDigit(Peek(2))) return Stop(Code::kUnsupported, "back references past \\9 are not supported");
    out_ += fmt::format("\\g{{{}}}", Peek(1));
    pos_ += 2;
    return {};
  }

  // At a backslash: reads \s \S \w \W \d \D \h \H \p{} \P{} into `set`; false (nothing read) if it is none of
  // these.
  Result<bool> ReadSetEscape(Set& set, bool in_class) {
    const char c = Peek(1);
    switch (c) {
      case 's':
      case 'S':
        set.items = kSpaceSet;
        break;
      case 'w':
      case 'W':
        set.items = WordSet(in_class, with_additions_);
        break;
      case 'd':
      case 'D':
        set.items = PropertySet("Nd", with_additions_);
        break;
      case 'h':
      case 'H':
        set.items = kHexSet;
        break;
      case 'p':
      case 'P':
        return ReadProperty(set);
      default:
        return false;
    }
    set.negated = c < 'a';
    pos_ += 2;
    return true;
  }

  Result<bool> ReadProperty(Set& set) {
    const size_t end = in_.find('}', pos_);
    if (Peek(2) != '{' || end == kNone) return Stop(Code::kInvalidArgument, "\\p without {{name}}");
    std::string_view name = in_.substr(pos_ + 3, end - pos_ - 3);
    set.negated = Peek(1) == 'P';
    if (name.starts_with('^')) {
      set.negated = !set.negated;
      name.remove_prefix(1);
    }
    for (const char c : name) {
      if (!IsLetter(c) && !IsDigit(c) && c != '_' && c != '-' && c != ' ') {
        return Stop(Code::kInvalidArgument, "bad property name '{}'", name);
      }
    }
    set.items = PropertySet(name, with_additions_);
    pos_ = end + 1;
    return true;
  }

  // At a backslash: reads an escape that stands for one code point.
  Result<char32_t> ReadPointEscape() {
    if (pos_ + 1 >= in_.size()) return Stop(Code::kInvalidArgument, "'\\' at the end");
    const char c = Peek(1);
    const auto simple = [&](char32_t cp) {
      pos_ += 2;
      return cp;
    };
    switch (c) {
      case 'n':
        return simple('\n');
      case 't':
        return simple('\t');
      case 'r':
        return simple('\r');
      case 'f':
        return simple('\f');
      case 'v':
        return simple('\v');
      case 'a':
        return simple('\a');
      case 'e':
        return simple(0x1B);
      case '0':
        return simple(0);
      case 'u':
        return ReadHex(pos_ + 2, 4, 4);
      case 'x': {
        if (Peek(2) != '{') {
          CADRE_ASSIGN(const char32_t cp, ReadHex(pos_ + 2, 1, 2));
          if (cp >= 0x80) return Stop(Code::kUnsupported, "a byte past \\x7f; write \\x{{...}}");
          return cp;
        }
        CADRE_ASSIGN(const char32_t cp, ReadHex(pos_ + 3, 1, 8));
        if (Peek() != '}') return Stop(Code::kInvalidArgument, "\\x{{ without }}");
        ++pos_;
        return cp;
      }
      case 'c':
      case 'C':
      case 'M':
        return Stop(Code::kUnsupported, "'\\{}' is not supported", c);
      default: {
        ++pos_;
        return NextCodePoint(in_, pos_);
      }
    }
  }

  Result<char32_t> ReadHex(size_t from, size_t at_least, size_t at_most) {
    char32_t cp = 0;
    size_t digits = 0;
    for (; digits < at_most && from + digits < in_.size() && HexValue(in_[from + digits]) >= 0; ++digits) {
      cp = cp * 16 + static_cast<char32_t>(HexValue(in_[from + digits]));
    }
    if (digits < at_least || cp > 0x10FFFF) return Stop(Code::kInvalidArgument, "bad hexadecimal code point");
    pos_ = from + digits;
    return cp;
  }

  // --- classes
  // ------------------------------------------------------------------------------------------------

  // One operand of &&: a flat set and others that could not be put into it.
  struct Union {
    std::string items;
    std::vector<std::string> others;

    std::string Text() const {
      if (others.empty()) return Set{false, items}.Text();
      std::string text = "(?:";
      if (!items.empty()) text += "[" + items + "]|";
      for (size_t i = 0; i < others.size(); ++i) text += (i > 0 ? "|" : "") + others[i];
      return text + ")";
    }
  };

  // At '[': reads the class and appends a pattern that matches exactly one code point of it.
  Status ReadClass(int depth, std::string& out) {
    bool negated = false;
    std::vector<Union> operands;
    CADRE_TRY(ReadOperands(depth, negated, operands));
    if (operands.size() == 1 && operands[0].others.empty()) {
      out += Set{negated, operands[0].items}.Text();
      return {};
    }
    std::string all;
    for (size_t i = 0; i + 1 < operands.size(); ++i) all += "(?=" + operands[i].Text() + ")";
    all += operands.back().Text();
    out += negated ? "(?:(?!" + all + ")(?s:.))" : "(?:" + all + ")";
    return {};
  }

  Status ReadOperands(int depth, bool& negated, std::vector<Union>& operands) {
    if (depth > kMaxClassDepth) return Stop(Code::kUnsupported, "classes nested too deep");
    ++pos_;
    if (Peek() == '^') {
      negated = true;
      ++pos_;
    }
    operands.emplace_back();
    if (Peek() == ']') {  // the first one stands for itself
      PutPoint(operands.back().items, ']');
      ++pos_;
    }
    for (;;) {
      if (pos_ >= in_.size()) return Stop(Code::kInvalidArgument, "class without ']'");
      if (Peek() == ']') break;
      if (At("&&")) {
        pos_ += 2;
        operands.emplace_back();
      } else {
        CADRE_TRY(ReadItem(depth, operands.back()));
      }
    }
    ++pos_;
    return {};
  }

  Status ReadItem(int depth, Union& into) {
    if (At("[:")) {
      CADRE_ASSIGN(const bool is_posix, ReadPosix(into));
      if (is_posix) return {};
    }
    if (Peek() == '[') {
      bool negated = false;
      const size_t start = pos_;
      std::vector<Union> operands;
      CADRE_TRY(ReadOperands(depth + 1, negated, operands));
      if (!negated && operands.size() == 1 && operands[0].others.empty()) {
        into.items += operands[0].items;
        return {};
      }
      pos_ = start;
      into.others.emplace_back();
      return ReadClass(depth + 1, into.others.back());
    }
    if (Peek() == '\\') {
      Set set;
      CADRE_ASSIGN(const bool is_set, ReadSetEscape(set, true));
      if (is_set) {
        AddSet(set, into);
        return {};
      }
    }
    return ReadRange(into);
  }

  static void AddSet(const Set& set, Union& into) {
    if (set.negated) {
      into.others.push_back(set.Text());
    } else {
      into.items += set.items;
    }
  }

  Status ReadRange(Union& into) {
    CADRE_ASSIGN(const char32_t low, ReadClassPoint());
    PutPoint(into.items, low);
    const bool is_range = Peek() == '-' && pos_ + 1 < in_.size() && Peek(1) != ']' && Peek(1) != '[' &&
                          in_.substr(pos_ + 1, 2) != "&&" && !IsSetEscape(pos_ + 1);
    if (!is_range) return {};
    ++pos_;
    CADRE_ASSIGN(const char32_t high, ReadClassPoint());
    if (high < low) return Stop(Code::kInvalidArgument, "empty range in a class");
    into.items += '-';
    PutPoint(into.items, high);
    return {};
  }

  bool IsSetEscape(size_t at) const {
    return at + 1 < in_.size() && in_[at] == '\\' &&
           std::string_view("sSwWdDhHpP").find(in_[at + 1]) != kNone;
  }

  Result<char32_t> ReadClassPoint() {
    if (Peek() != '\\') return NextCodePoint(in_, pos_);
    if (Peek(1) == 'b') {
      pos_ += 2;
      return char32_t{8};
    }
    return ReadPointEscape();
  }

  // At "[:": reads [:name:] or [:^name:]; false (nothing read) if it is none.
  Result<bool> ReadPosix(Union& into) {
    const size_t end = in_.find(":]", pos_ + 2);
    if (end == kNone || end - pos_ > 12) return false;
    std::string_view name = in_.substr(pos_ + 2, end - pos_ - 2);
    Set set;
    if (name.starts_with('^')) {
      set.negated = true;
      name.remove_prefix(1);
    }
    set.items = PosixSet(name, with_additions_);
    if (set.items.empty()) return Stop(Code::kUnsupported, "class '[:{}:]' is not supported", name);
    AddSet(set, into);
    pos_ = end + 2;
    return true;
  }

  std::string_view in_;
  bool with_additions_;
  size_t pos_ = 0;
  std::string out_;
  std::vector<Group> groups_;
  size_t atom_ = kNone;      // where the last thing that can be repeated begins in out_
  bool quantified_ = false;  // it has a repeat already
  int wraps_ = 0;
};

}  // namespace

Result<std::string> OnigToPcre2(std::string_view pattern, bool with_additions) {
  return Translator(pattern, with_additions).Run();
}

}  // namespace cadre::text
