// Python's three ways to format: repr of floats, the % operator, str.format; and strftime.
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <ctime>

#include "text/jinja_filters.h"
#include "text/jinja_runtime.h"
#include "text/jinja_text.h"

namespace cadre::jinja {
namespace {

constexpr int64_t kMaxWidth = 1'000'000;
constexpr int64_t kMaxPrecision = 400;  // past any digit of a double

/// A format specification, of % or of str.format.
struct Spec {
  std::string fill = " ";
  char align = 0;  // < > = ^; 0: by type
  char sign = '-';
  bool alternate = false;
  char grouping = 0;  // , or _
  int64_t width = 0;
  int64_t precision = -1;
  char type = 0;
};

std::string Group(std::string_view digits, char separator, size_t every) {
  std::string out;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % every == 0) out += separator;
    out += digits[i];
  }
  return out;
}

std::string IntDigits(uint64_t magnitude, char type) {
  char buffer[72];
  const int base = type == 'x' || type == 'X' ? 16 : type == 'o' ? 8 : type == 'b' ? 2 : 10;
  const auto end = std::to_chars(buffer, buffer + sizeof(buffer), magnitude, base).ptr;
  std::string text(buffer, static_cast<size_t>(end - buffer));
  return type == 'X' ? Upper(text) : text;
}

// The digits of a finite, non-negative double by printf's rules.
std::string FloatDigits(double magnitude, char type, int64_t precision, bool alternate) {
  const int digits = static_cast<int>(precision < 0 ? 6 : precision);
  const char* const hash = alternate ? "#" : "";
  char pattern[16];
  std::snprintf(pattern, sizeof(pattern), "%%%s.*%c", hash, type);
  std::string text(400 + kMaxPrecision, '\0');
  const int n = std::snprintf(text.data(), text.size(), pattern, digits, magnitude);
  text.resize(static_cast<size_t>(std::max(n, 0)));
  return text;
}

// As %g, but a whole number gets ".0", and an exponent where that would be a digit too many.
std::string GeneralDigits(double magnitude, int64_t precision) {
  precision = std::max<int64_t>(precision, 1);
  std::string text = FloatDigits(magnitude, 'g', precision, false);
  if (text.find_first_of(".e") != std::string::npos) return text;
  if (static_cast<int64_t>(text.size()) < precision) return text + ".0";
  text = FloatDigits(magnitude, 'e', precision - 1, false);
  const size_t e = text.find('e');
  size_t end = e;
  if (text.find('.') < e) {
    while (text[end - 1] == '0') --end;
    if (text[end - 1] == '.') --end;
  }
  return text.erase(end, e - end);
}

struct NumberText {
  std::string sign, prefix, digits;
};

std::string Pad(Runtime& rt, const Spec& spec, const NumberText& number, char default_align) {
  const std::string body = number.sign + number.prefix + number.digits;
  const int64_t padding = spec.width - CountChars(body);
  if (padding <= 0) return body;
  rt.CheckStringSize(static_cast<size_t>(padding) * spec.fill.size());
  const auto fill = [&](int64_t n) {
    std::string out;
    for (int64_t i = 0; i < n; ++i) out += spec.fill;
    return out;
  };
  switch (spec.align != 0 ? spec.align : default_align) {
    case '<':
      return body + fill(padding);
    case '^':
      return fill(padding / 2) + body + fill(padding - padding / 2);
    case '=':
      return number.sign + number.prefix + fill(padding) + number.digits;
    default:
      return fill(padding) + body;
  }
}

std::string SignOf(bool negative, char sign) {
  if (negative) return "-";
  return sign == '+' ? "+" : sign == ' ' ? " " : "";
}

std::string FormatInteger(Runtime& rt, const Spec& spec, int64_t value) {
  const uint64_t magnitude =
      value < 0 ? uint64_t{0} - static_cast<uint64_t>(value) : static_cast<uint64_t>(value);
  NumberText number;
  number.sign = SignOf(value < 0, spec.sign);
  number.digits = IntDigits(magnitude, spec.type);
  const bool decimal = spec.type == 0 || spec.type == 'd' || spec.type == 'n';
  if (spec.alternate && !decimal) number.prefix = {'0', spec.type};
  if (static_cast<int64_t>(number.digits.size()) < spec.precision) {  // % only
    number.digits.insert(0, static_cast<size_t>(spec.precision) - number.digits.size(), '0');
  }
  if (spec.grouping != 0) number.digits = Group(number.digits, spec.grouping, decimal ? 3 : 4);
  return Pad(rt, spec, number, '>');
}

std::string FormatReal(Runtime& rt, const Spec& spec, double value) {
  NumberText number;
  number.sign = SignOf(std::signbit(value) && !std::isnan(value), spec.sign);
  const double magnitude = std::fabs(value);
  const bool upper = spec.type == 'F' || spec.type == 'E' || spec.type == 'G';
  if (!std::isfinite(value)) {
    number.digits = std::string(std::isnan(value) ? "nan" : "inf");
    if (upper) number.digits = Upper(number.digits);
  } else if (spec.type == '%') {
    number.digits = FloatDigits(magnitude * 100, 'f', spec.precision, spec.alternate);
  } else if (spec.type == 0) {
    number.digits = spec.precision < 0 ? FormatFloat(magnitude) : GeneralDigits(magnitude, spec.precision);
  } else {
    const int64_t precision =
        (spec.type == 'g' || spec.type == 'G') && spec.precision == 0 ? 1 : spec.precision;
    number.digits = FloatDigits(magnitude, spec.type == 'n' ? 'g' : spec.type, precision, spec.alternate);
  }
  if (spec.grouping != 0) {
    const size_t point = std::min(number.digits.find_first_of(".e"), number.digits.size());
    number.digits = Group(number.digits.substr(0, point), spec.grouping, 3) + number.digits.substr(point);
  }
  if (spec.type == '%') number.digits += '%';
  return Pad(rt, spec, number, '>');
}

std::string FormatText(Runtime& rt, const Spec& spec, std::string_view text) {
  NumberText whole;
  if (spec.precision >= 0) text = text.substr(0, ByteOffset(text, spec.precision));
  whole.digits = text;
  return Pad(rt, spec, whole, '<');
}

void LimitSpec(const Spec& spec, int64_t max_precision) {
  if (spec.width > kMaxWidth || spec.precision > max_precision) {
    RaiseValue("a format width or precision is too large");
  }
}

// ---------------------------------------------------------------- the % operator

class PercentFormatter {
 public:
  PercentFormatter(Runtime& rt, std::string_view pattern, const Value& values)
      : rt_(rt), pattern_(pattern), values_(values), out_(rt) {}

  Value Run(bool markup) {
    rt_.FailIfUndefined(values_);
    while (pos_ < pattern_.size()) {
      const size_t percent = std::min(pattern_.find('%', pos_), pattern_.size());
      out_.Append(pattern_.substr(pos_, percent - pos_));
      pos_ = percent + 1;
      if (percent < pattern_.size()) Field(markup);
    }
    if (values_.Is(Kind::kTuple) ? used_ < values_.As<ListObj>().items.size()
                                 : used_ == 0 && !values_.Is(Kind::kDict) && !values_.Is(Kind::kList)) {
      RaiseType("not all arguments converted during string formatting");
    }
    return out_.Take(markup);
  }

 private:
  char Next() {
    if (pos_ >= pattern_.size()) RaiseValue("incomplete format");
    return pattern_[pos_++];
  }
  char Peek() const { return pos_ < pattern_.size() ? pattern_[pos_] : '\0'; }

  Value Argument() {
    if (values_.Is(Kind::kTuple)) {
      const ValueVec& items = values_.As<ListObj>().items;
      if (used_ >= items.size()) RaiseType("not enough arguments for format string");
      return items[used_++];
    }
    if (used_ > 0) RaiseType("not enough arguments for format string");
    ++used_;
    return values_;
  }

  int64_t Number() {
    if (Peek() == '*') {
      ++pos_;
      return rt_.NeedInt(Argument(), "* wants int");
    }
    int64_t n = 0;
    while (Peek() >= '0' && Peek() <= '9' && n < kMaxWidth * 10) n = n * 10 + (Next() - '0');
    return n;
  }

  void Field(bool markup) {
    rt_.Charge();
    Value named = Value::Missing();
    if (Peek() == '(') {
      const size_t close = pattern_.find(')', pos_);
      if (close == std::string_view::npos) RaiseValue("incomplete format key");
      if (!values_.Is(Kind::kDict)) RaiseType("format requires a mapping");
      const std::string_view key = pattern_.substr(pos_ + 1, close - pos_ - 1);
      const Value* found = values_.As<DictObj>().Find(key);
      if (found == nullptr) throw EvalError{EvalError::Kind::kPython, Format("KeyError: '{}'", key)};
      named = *found;
      pos_ = close + 1;
    }
    Spec spec;
    bool zero = false;
    for (bool flags = true; flags;) {
      switch (Peek()) {
        case '-':
          spec.align = '<';
          break;
        case '+':
          spec.sign = '+';
          break;
        case ' ':
          spec.sign = spec.sign == '+' ? '+' : ' ';
          break;
        case '#':
          spec.alternate = true;
          break;
        case '0':
          zero = true;
          break;
        default:
          flags = false;
          continue;
      }
      ++pos_;
    }
    spec.width = Number();
    if (spec.width < 0) {
      spec.align = '<';
      spec.width = -spec.width;
    }
    if (Peek() == '.') {
      ++pos_;
      spec.precision = std::max<int64_t>(Number(), 0);
    }
    while (Peek() == 'l' || Peek() == 'h' || Peek() == 'L') ++pos_;
    spec.type = Next();
    if (spec.type == '%') return out_.Append("%");
    LimitSpec(spec,
              std::string_view("sra").find(spec.type) != std::string_view::npos ? INT64_MAX : kMaxPrecision);
    if (zero && spec.align == 0 &&
        std::string_view("diouxXeEfFgG").find(spec.type) != std::string_view::npos) {
      spec.fill[0] = '0';
      spec.align = '=';
    }
    const Value value = named.IsMissing() ? Argument() : named;
    const std::string text = Convert(spec, value);
    const bool plain = markup && !(value.IsStr() && value.As<StrObj>().markup);
    out_.Append(plain ? EscapeHtml(rt_, text) : text);
  }

  std::string Convert(Spec& spec, const Value& value) {
    if (spec.align == 0) spec.align = '>';
    switch (spec.type) {
      case 's':
        return FormatText(rt_, spec, rt_.ToStr(value));
      case 'r':
      case 'a':
        return FormatText(rt_, spec, rt_.ToRepr(value));
      case 'c': {
        if (value.IsIntegral() && value.AsInt() >= 0 && value.AsInt() <= 0x10FFFF) {
          std::string text;
          AppendChar(text, static_cast<char32_t>(value.AsInt()));
          return FormatText(rt_, spec, text);
        }
        if (!value.IsStr() || rt_.Length(value) != 1) RaiseType("%c requires int or char");
        return FormatText(rt_, spec, value.str());
      }
      case 'd':
      case 'i':
      case 'u':
        rt_.FailIfUndefined(value);
        if (!value.IsNumber())
          RaiseType("%{} format: a real number is required, not {}", spec.type, TypeName(value));
        return FormatInteger(rt_, WithType(spec, 'd'), ToInt(value));
      case 'x':
      case 'X':
      case 'o':
        return FormatInteger(rt_, spec, rt_.NeedInt(value, "format argument"));
      case 'e':
      case 'E':
      case 'f':
      case 'F':
      case 'g':
      case 'G':
        rt_.FailIfUndefined(value);
        if (!value.IsNumber()) RaiseType("must be real number, not {}", TypeName(value));
        return FormatReal(rt_, spec, value.AsDouble());
      default:
        RaiseValue("unsupported format character '{}'", spec.type);
    }
  }

  static Spec WithType(Spec spec, char type) {
    spec.type = type;
    return spec;
  }
  static int64_t ToInt(const Value& v) {
    if (v.IsIntegral()) return v.AsInt();
    if (!(std::fabs(v.AsDouble()) < 9.2e18)) RaiseValue("cannot convert float to a 64-bit integer");
    return static_cast<int64_t>(v.AsDouble());
  }

  Runtime& rt_;
  const std::string_view pattern_;
  const Value& values_;
  Builder out_;
  size_t pos_ = 0;
  size_t used_ = 0;
};

// ---------------------------------------------------------------- str.format

Spec ParseSpec(std::string_view text) {
  Spec spec;
  size_t pos = 0;
  const auto is_align = [](char c) { return c == '<' || c == '>' || c == '=' || c == '^'; };
  if (!text.empty()) {
    const size_t n = CharSize(text, 0);
    if (n < text.size() && is_align(text[n])) {
      spec.fill = text.substr(0, n);
      spec.align = text[n];
      pos = n + 1;
    } else if (is_align(text[0])) {
      spec.align = text[0];
      pos = 1;
    }
  }
  const auto peek = [&] { return pos < text.size() ? text[pos] : '\0'; };
  const auto number = [&] {
    int64_t n = 0;
    while (peek() >= '0' && peek() <= '9' && n < kMaxWidth * 10) n = n * 10 + (text[pos++] - '0');
    return n;
  };
  if (peek() == '+' || peek() == '-' || peek() == ' ') spec.sign = text[pos++];
  if (peek() == '#') spec.alternate = text[pos++] == '#';
  if (peek() == '0') {
    ++pos;
    if (spec.align == 0) {
      spec.fill[0] = '0';
      spec.align = '=';
    }
  }
  spec.width = number();
  if (peek() == ',' || peek() == '_') spec.grouping = text[pos++];
  if (peek() == '.') {
    ++pos;
    if (peek() < '0' || peek() > '9') RaiseValue("Format specifier missing precision");
    spec.precision = number();
  }
  if (pos < text.size()) spec.type = text[pos++];
  if (pos < text.size()) RaiseValue("Invalid format specifier");
  return spec;
}

std::string FormatValue(Runtime& rt, const Value& value, std::string_view spec_text) {
  if (spec_text.empty()) return rt.ToStr(value);
  Spec spec = ParseSpec(spec_text);
  const auto wrong_type = [&] {
    RaiseValue("Unknown format code '{}' for object of type '{}'", spec.type, TypeName(value));
  };
  const bool real_type =
      spec.type != 0 && std::string_view("eEfFgGn%").find(spec.type) != std::string_view::npos;
  if (value.IsStr()) {
    if (spec.type != 0 && spec.type != 's') wrong_type();
    if (spec.align == '=') RaiseValue("'=' alignment not allowed in string format specifier");
    LimitSpec(spec, INT64_MAX);
    return FormatText(rt, spec, value.str());
  }
  LimitSpec(spec, kMaxPrecision);
  if (value.IsIntegral() && !(real_type && spec.type != 'n')) {
    if (spec.precision >= 0) RaiseValue("Precision not allowed in integer format specifier");
    if (spec.type != 0 && std::string_view("dnxXob").find(spec.type) == std::string_view::npos) wrong_type();
    return FormatInteger(rt, spec, value.AsInt());
  }
  if (value.IsNumber()) {
    if (spec.type != 0 && !real_type) wrong_type();
    return FormatReal(rt, spec, value.AsDouble());
  }
  RaiseType("unsupported format string passed to {}.__format__", TypeName(value));
}

class BraceFormatter {
 public:
  BraceFormatter(Runtime& rt, Args& args) : rt_(rt), args_(args) {}

  std::string Run(std::string_view pattern, int depth) {
    if (depth > 2) RaiseValue("Max string recursion exceeded");
    Builder out(rt_);
    for (size_t pos = 0; pos < pattern.size();) {
      const size_t brace = std::min(pattern.find_first_of("{}", pos), pattern.size());
      out.Append(pattern.substr(pos, brace - pos));
      pos = brace + 1;
      if (brace >= pattern.size()) break;
      if (pos < pattern.size() && pattern[pos] == pattern[brace]) {
        out.Append(pattern.substr(brace, 1));
        ++pos;
        continue;
      }
      if (pattern[brace] == '}') RaiseValue("Single '}}' encountered in format string");
      size_t end = pos;
      for (int open = 1;; ++end) {
        if (end >= pattern.size()) RaiseValue("expected '}}' before end of string");
        open += pattern[end] == '{' ? 1 : pattern[end] == '}' ? -1 : 0;
        if (open == 0) break;
      }
      rt_.Charge();
      out.Append(Field(pattern.substr(pos, end - pos), depth));
      pos = end + 1;
    }
    return std::move(out.text());
  }

 private:
  std::string Field(std::string_view field, int depth) {
    // name!conversion:spec, where the name may hold brackets with anything in them.
    size_t name_end = 0;
    bool bracket = false;
    while (name_end < field.size()) {
      const char c = field[name_end];
      if (c == '[') bracket = true;
      if (c == ']') bracket = false;
      if (!bracket && (c == '!' || c == ':')) break;
      ++name_end;
    }
    const Value value = Lookup(field.substr(0, name_end));
    std::string_view rest = field.substr(name_end);
    char conversion = 0;
    if (rest.starts_with("!")) {
      if (rest.size() < 2 || (rest.size() > 2 && rest[2] != ':'))
        RaiseValue("expected ':' after conversion specifier");
      conversion = rest[1];
      rest.remove_prefix(2);
    }
    const std::string spec = rest.starts_with(":") ? Run(rest.substr(1), depth + 1) : std::string();
    switch (conversion) {
      case 0:
        return FormatValue(rt_, value, spec);
      case 's':
        return FormatValue(rt_, rt_.Str(rt_.ToStr(value)), spec);
      case 'r':
      case 'a':
        return FormatValue(rt_, rt_.Str(rt_.ToRepr(value)), spec);
      default:
        RaiseValue("Unknown conversion specifier {}", conversion);
    }
  }

  Value Positional(int64_t i) {
    if (i < 0 || i >= static_cast<int64_t>(args_.pos.size())) {
      throw EvalError{EvalError::Kind::kPython,
                      Format("IndexError: Replacement index {} out of range for positional args tuple", i)};
    }
    return args_.pos[static_cast<size_t>(i)];
  }

  Value Lookup(std::string_view name) {
    const size_t first_end = std::min(name.find_first_of(".["), name.size());
    const std::string_view first = name.substr(0, first_end);
    int64_t index = 0;
    const bool numeric = !first.empty() && first.find_first_not_of("0123456789") == std::string_view::npos;
    Value value;
    if (first.empty() || numeric) {
      if (next_ != 0 && numeric != numbered_) {
        RaiseValue("cannot switch between manual and automatic field numbering");
      }
      numbered_ = numeric;
      if (numeric && !(first.size() < 10 && ParseInt(first, 10, index)))
        RaiseValue("Too many decimal digits");
      value = Positional(numeric ? index : next_);
      ++next_;
    } else {
      const Value* found = nullptr;
      for (const auto& [key, argument] : args_.kw) {
        if (key == first) found = &argument;
      }
      rt_.Charge(args_.kw.size());
      if (found == nullptr) throw EvalError{EvalError::Kind::kPython, Format("KeyError: '{}'", first)};
      value = *found;
    }
    for (std::string_view rest = name.substr(first_end); !rest.empty();) {
      if (rest[0] == '.') {
        const size_t end = std::min(rest.find_first_of(".[", 1), rest.size());
        value = rt_.GetAttr(value, rt_.Str(std::string(rest.substr(1, end - 1))));
        rest = rest.substr(end);
      } else {
        const size_t close = rest.find(']');
        if (rest[0] != '[' || close == std::string_view::npos) RaiseValue("Missing ']' in format string");
        const std::string_view key = rest.substr(1, close - 1);
        const bool is_index = !key.empty() && key.find_first_not_of("0123456789") == std::string_view::npos;
        if (is_index && key.size() < 18 && ParseInt(key, 10, index)) {
          value = rt_.GetItem(value, Value::Int(index));
        } else {
          value = rt_.GetItem(value, rt_.Str(std::string(key)));
        }
        rest = rest.substr(close + 1);
      }
    }
    return value;
  }

  Runtime& rt_;
  Args& args_;
  int64_t next_ = 0;
  bool numbered_ = false;
};

}  // namespace

std::string FormatFloat(double d) {
  if (std::isnan(d)) return "nan";
  if (std::isinf(d)) return d > 0 ? "inf" : "-inf";
  // The shortest digits that read back equal; as an exponent below 1e-4 and from 1e16 on.
  char buffer[40];
  const double magnitude = std::fabs(d);
  const bool exponent = magnitude != 0 && (magnitude < 1e-4 || magnitude >= 1e16);
  const auto format = exponent ? std::chars_format::scientific : std::chars_format::fixed;
  const auto end = std::to_chars(buffer, buffer + sizeof(buffer), d, format).ptr;
  std::string text(buffer, static_cast<size_t>(end - buffer));
  if (!exponent && text.find('.') == std::string::npos) text += ".0";
  return text;
}

Value PercentFormat(Runtime& rt, const Value& pattern, const Value& values) {
  return PercentFormatter(rt, pattern.str(), values).Run(pattern.As<StrObj>().markup);
}

Value StrFormat(Runtime& rt, const Value& pattern, Args& args) {
  return rt.Str(BraceFormatter(rt, args).Run(pattern.str(), 0), pattern.As<StrObj>().markup);
}

std::string Strftime(Runtime& rt, std::string_view format) {
  std::tm now{};
  if (rt.limits().now) {
    now = *rt.limits().now;
  } else {
    const std::time_t seconds = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
    localtime_r(&seconds, &now);
  }
  if (format.size() > 1024) RaiseValue("a strftime_now format is longer than 1024 bytes");
  // What Python's datetime adds to the C library: microseconds, and no time zone on a naive time.
  std::string pattern;
  for (size_t i = 0; i < format.size(); ++i) {
    const char next = format[i] == '%' && i + 1 < format.size() ? format[i + 1] : '\0';
    if (format[i] == '\0') {
      RaiseValue("embedded null character");
    } else if (next == 'f') {
      pattern += "000000";
      ++i;
    } else if (next == 'z' || next == 'Z') {
      ++i;
    } else {
      pattern += format[i];
      if (next != '\0') pattern += format[++i];
    }
  }
  // Digits between % and the letter are a width: strftime would pad to it without end.
  for (size_t i = 0; i + 1 < pattern.size(); ++i) {
    if (pattern[i] != '%') continue;
    size_t end = i + 1;
    while (end < pattern.size() && std::string_view("_-0^#").find(pattern[end]) != std::string_view::npos)
      ++end;
    if (end < pattern.size() && pattern[end] >= '1' && pattern[end] <= '9') {
      RaiseValue("widths are not supported in strftime_now formats");
    }
    i = end;
  }
  if (pattern.empty()) return {};
  // A trailing character tells an empty result from one that did not fit.
  pattern += '.';
  std::string out(64 * 1024, '\0');
  const size_t n = std::strftime(out.data(), out.size(), pattern.c_str(), &now);
  out.resize(n > 0 ? n - 1 : 0);
  return out;
}

}  // namespace cadre::jinja
