#include "text/jinja_filters.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <unordered_map>

#include "text/jinja_text.h"

namespace cadre::jinja {
namespace {

Value FilterAbs(Runtime& rt, const Value& v, Args& args) {
  Params("abs", args, {});
  rt.FailIfUndefined(v);
  if (!v.IsNumber()) RaiseType("bad operand type for abs(): '{}'", TypeName(v));
  if (v.Is(Kind::kFloat)) return Value::Float(std::fabs(v.AsDouble()));
  return v.AsInt() < 0 ? rt.Negate(v) : Value::Int(v.AsInt());
}

Value FilterAttr(Runtime& rt, const Value& v, Args& args) {
  const Params p("attr", args, {"name"}, 1);
  rt.NeedStr(*p[0], "attribute name");
  rt.FailIfUndefined(v);
  // Attributes only: no fall-back to items.
  const Value missing = rt.Undefined(UndefinedObj::Why::kAttribute, TypeRepr(v), *p[0]);
  if (v.Is(Kind::kDict) && FindMethod(MethodKind(v), p[0]->str()) == nullptr) return missing;
  return rt.GetAttr(v, *p[0]);
}

Value FilterDefault(Runtime& rt, const Value& v, Args& args) {
  const Params p("default", args, {"default_value", "boolean"});
  const bool use_default = v.IsUndefined() || (p.Flag(1) && !Truthy(v));
  if (!use_default) return v;
  return p[0] != nullptr ? *p[0] : rt.Str("");
}

Value FilterFileSize(Runtime& rt, const Value& v, Args& args) {
  const Params p("filesizeformat", args, {"binary"});
  double bytes = 0;
  if (v.IsNumber()) {
    bytes = v.AsDouble();
  } else if (!ParseFloat(rt.NeedStr(v, "size"), bytes)) {
    RaiseValue("could not convert string to float: {}", rt.ToRepr(v));
  }
  const bool binary = p.Flag(0);
  const double base = binary ? 1024 : 1000;
  constexpr const char* kPrefixes[] = {"K", "M", "G", "T", "P", "E", "Z", "Y"};
  if (bytes == 1) return rt.Str("1 Byte");
  if (bytes < base) return rt.Str(Format("{} Bytes", static_cast<int64_t>(bytes)));
  double unit = base;
  for (const char* prefix : kPrefixes) {
    unit *= base;
    if (bytes < unit || prefix[0] == 'Y') {
      const char* name = !binary && prefix[0] == 'K' ? "k" : prefix;
      return rt.Str(Format("{:.1f} {}{}", base * bytes / unit, name, binary ? "iB" : "B"));
    }
  }
  return rt.Str("");
}

Value FilterFloat(Runtime& rt, const Value& v, Args& args) {
  const Params p("float", args, {"default"});
  rt.FailIfUndefined(v);
  double out = 0;
  if (v.IsNumber()) return Value::Float(v.AsDouble());
  if (v.IsStr() && ParseFloat(v.str(), out)) return Value::Float(out);
  return p[0] != nullptr ? *p[0] : Value::Float(0);
}

Value FilterInt(Runtime& rt, const Value& v, Args& args) {
  const Params p("int", args, {"default", "base"});
  rt.FailIfUndefined(v);
  const Value otherwise = p[0] != nullptr ? *p[0] : Value::Int(0);
  double number = 0;
  if (v.IsIntegral()) return Value::Int(v.AsInt());
  if (v.IsStr()) {
    int64_t out = 0;
    if (ParseInt(v.str(), p[1] != nullptr ? rt.NeedInt(*p[1], "base") : 10, out)) return Value::Int(out);
    if (!ParseFloat(v.str(), number)) return otherwise;
  } else if (v.Is(Kind::kFloat)) {
    number = v.AsDouble();
  } else {
    return otherwise;
  }
  if (!std::isfinite(number)) return otherwise;
  if (std::fabs(number) >= 9.2e18) {
    throw EvalError{EvalError::Kind::kPython, "OverflowError: integers past 64 bits are not supported"};
  }
  return Value::Int(static_cast<int64_t>(number));
}

Value FilterLength(Runtime& rt, const Value& v, Args& args) {
  Params("length", args, {});
  return Value::Int(rt.Length(v));
}

Value FilterPprint(Runtime& rt, const Value& v, Args& args) {
  Params("pprint", args, {});
  return rt.Str(rt.ToRepr(v));
}

Value FilterRound(Runtime& rt, const Value& v, Args& args) {
  const Params p("round", args, {"precision", "method"});
  rt.FailIfUndefined(v);
  const int64_t precision = p[0] != nullptr ? rt.NeedInt(*p[0], "precision") : 0;
  const std::string_view method = p[1] != nullptr ? rt.NeedStr(*p[1], "method") : "common";
  if (method != "common" && method != "ceil" && method != "floor") {
    Raise(EvalError::Kind::kTemplate, "method must be common, ceil or floor");
  }
  if (!v.IsNumber()) RaiseType("type {} doesn't define __round__ method", TypeName(v));
  const double number = v.AsDouble();
  if (method != "common") {
    // Python: func(value * 10**precision) / 10**precision
    const double scale = std::pow(10.0, static_cast<double>(std::clamp<int64_t>(precision, -400, 400)));
    const double scaled = method == "ceil" ? std::ceil(number * scale) : std::floor(number * scale);
    return Value::Float(scaled / scale);
  }
  if (v.IsIntegral()) {
    if (precision >= 0) return Value::Int(v.AsInt());
    if (precision < -18) return Value::Int(0);
    int64_t unit = 1;
    for (int64_t i = precision; i < 0; ++i) unit *= 10;
    // Half to even, as Python rounds.
    const Value mod = rt.Mod(v, Value::Int(unit));
    const int64_t down = v.AsInt() - mod.AsInt();
    const bool up = mod.AsInt() * 2 > unit || (mod.AsInt() * 2 == unit && (down / unit) % 2 != 0);
    return rt.Add(Value::Int(down), Value::Int(up ? unit : 0));
  }
  if (!std::isfinite(number) || precision > 340) return v;
  if (precision < -340) return Value::Float(std::copysign(0.0, number));
  if (precision < 0) {
    const double unit = std::pow(10.0, static_cast<double>(-precision));
    return Value::Float(std::nearbyint(number / unit) * unit);
  }
  // Correctly rounded, as Python does it: through the exact decimal digits.
  const std::string digits = Format("{:.{}f}", number, precision);
  return Value::Float(std::strtod(digits.c_str(), nullptr));
}

Value Refused(Runtime&, const Value&, Args&) {
  Raise(EvalError::Kind::kTemplate,
        "the filters random, urlize and wordwrap are not supported in chat templates (the same chat must "
        "always give "
        "the same prompt; links and line lengths mean nothing to a model)");
}

const std::unordered_map<std::string_view, Function>& Filters() {
  static const auto* const kFilters = new std::unordered_map<std::string_view, Function>{
      {"abs", FilterAbs},
      {"attr", FilterAttr},
      {"batch", FilterBatch},
      {"capitalize", FilterCapitalize},
      {"center", FilterCenter},
      {"count", FilterLength},
      {"d", FilterDefault},
      {"default", FilterDefault},
      {"dictsort", FilterDictSort},
      {"e", FilterEscape},
      {"escape", FilterEscape},
      {"filesizeformat", FilterFileSize},
      {"first", FilterFirst},
      {"float", FilterFloat},
      {"forceescape", FilterForceEscape},
      {"format", FilterFormat},
      {"groupby", FilterGroupBy},
      {"indent", FilterIndent},
      {"int", FilterInt},
      {"items", FilterItems},
      {"join", FilterJoin},
      {"last", FilterLast},
      {"length", FilterLength},
      {"list", FilterList},
      {"lower", FilterLower},
      {"map", FilterMap},
      {"max", FilterMax},
      {"min", FilterMin},
      {"pprint", FilterPprint},
      {"random", Refused},
      {"reject", FilterReject},
      {"rejectattr", FilterRejectAttr},
      {"replace", FilterReplace},
      {"reverse", FilterReverse},
      {"round", FilterRound},
      {"safe", FilterSafe},
      {"select", FilterSelect},
      {"selectattr", FilterSelectAttr},
      {"slice", FilterSlice},
      {"sort", FilterSort},
      {"string", FilterString},
      {"striptags", FilterStripTags},
      {"sum", FilterSum},
      {"title", FilterTitle},
      {"tojson", ToJson},
      {"trim", FilterTrim},
      {"truncate", FilterTruncate},
      {"unique", FilterUnique},
      {"upper", FilterUpper},
      {"urlencode", FilterUrlEncode},
      {"urlize", Refused},
      {"wordcount", FilterWordCount},
      {"wordwrap", Refused},
      {"xmlattr", FilterXmlAttr},
  };
  return *kFilters;
}

// Digits with single underscores between them, without the underscores; false if it is anything else.
bool DropUnderscores(std::string_view text, std::string& out) {
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '_') {
      out += text[i];
    } else if (i == 0 || i + 1 == text.size() || text[i - 1] == '_') {
      return false;
    }
  }
  return true;
}

}  // namespace

Function FindFilter(std::string_view name) {
  const auto found = Filters().find(name);
  return found == Filters().end() ? nullptr : found->second;
}

Value CallFilter(Runtime& rt, const Value& name, const Value& self, Args& args) {
  const Function function = FindFilter(rt.NeedStr(name, "filter name"));
  if (function == nullptr) Raise(EvalError::Kind::kTemplate, "No filter named {}.", rt.ToRepr(name));
  return function(rt, self, args);
}

bool ParseInt(std::string_view text, int64_t base, int64_t& out) {
  text = Strip(text, nullptr, true, true);
  if (text.size() > 256) return false;
  bool negative = false;
  if (!text.empty() && (text[0] == '+' || text[0] == '-')) {
    negative = text[0] == '-';
    text.remove_prefix(1);
  }
  if (base < 0 || base == 1 || base > 36) RaiseValue("int() base must be >= 2 and <= 36, or 0");
  if (text.size() > 2 && text[0] == '0') {
    const char kind = static_cast<char>(text[1] | 0x20);
    const int64_t named = kind == 'x' ? 16 : kind == 'o' ? 8 : kind == 'b' ? 2 : 0;
    if (named != 0 && (base == 0 || base == named)) {
      base = named;
      text.remove_prefix(text[2] == '_' ? 3 : 2);
    }
  }
  if (base == 0) base = 10;
  std::string digits = negative ? "-" : "";
  if (text.empty() || text[0] == '-' || !DropUnderscores(text, digits)) return false;
  const char* const end = digits.data() + digits.size();
  const auto [stop, error] = std::from_chars(digits.data(), end, out, static_cast<int>(base));
  if (error == std::errc::result_out_of_range && stop == end) {
    throw EvalError{EvalError::Kind::kPython, "OverflowError: integers past 64 bits are not supported"};
  }
  return error == std::errc() && stop == end;
}

bool ParseFloat(std::string_view text, double& out) {
  text = Strip(text, nullptr, true, true);
  std::string plain;
  if (text.empty() || text.size() > 4096 || !DropUnderscores(text, plain)) return false;
  // What strtod takes and Python does not: hexadecimal, nan(...).
  if (plain.find_first_of("xX(") != std::string::npos) return false;
  const std::string lower = Lower(plain);
  if (lower.find_first_not_of("0123456789.+-einftyna") != std::string::npos) return false;
  char* end = nullptr;
  out = std::strtod(plain.c_str(), &end);
  return end == plain.c_str() + plain.size();
}

}  // namespace cadre::jinja
