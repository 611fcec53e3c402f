// The methods of str. Positions that a template sees are code points.
#include "text/jinja_methods.h"
#include "text/jinja_text.h"

namespace cadre::jinja {
namespace {

bool IsMarkup(const Value& v) {
  return v.As<StrObj>().markup;
}

// ---------------------------------------------------------------- case

template <std::string (*F)(std::string_view)>
Value Mapped(Runtime& rt, const Value& self, Args& args) {
  Params("str method", args, {});
  rt.ChargeBytes(self.str().size() * 4);
  return rt.Str(F(self.str()), IsMarkup(self));
}

// All characters pass, and there is one.
template <bool (*F)(char32_t)>
Value AllOf(Runtime& rt, const Value& self, Args& args) {
  Params("str method", args, {});
  const std::string_view s = self.str();
  rt.ChargeBytes(s.size() * 4);
  for (size_t pos = 0; pos < s.size();) {
    size_t n = 0;
    if (!F(CharAt(s, pos, &n))) return Value::Bool(false);
    pos += n;
  }
  return Value::Bool(!s.empty());
}

bool IsAlnum(char32_t c) {
  return IsAlpha(c) || IsDecimal(c) || IsDigit(c) || IsNumeric(c);
}

// islower, isupper: at least one cased character, and none of the other case.
template <bool lower>
Value HasCase(Runtime& rt, const Value& self, Args& args) {
  Params("str method", args, {});
  const std::string_view s = self.str();
  rt.ChargeBytes(s.size() * 4);
  bool any = false;
  for (size_t pos = 0; pos < s.size();) {
    size_t n = 0;
    const char32_t c = CharAt(s, pos, &n);
    if (lower ? IsUpper(c) || IsTitle(c) : IsLower(c) || IsTitle(c)) return Value::Bool(false);
    any = any || (lower ? IsLower(c) : IsUpper(c));
    pos += n;
  }
  return Value::Bool(any);
}

Value StrIsTitle(Runtime& rt, const Value& self, Args& args) {
  Params("istitle", args, {});
  const std::string_view s = self.str();
  rt.ChargeBytes(s.size() * 4);
  bool any = false;
  bool previous_cased = false;
  for (size_t pos = 0; pos < s.size();) {
    size_t n = 0;
    const char32_t c = CharAt(s, pos, &n);
    pos += n;
    if (IsUpper(c) || IsTitle(c)) {
      if (previous_cased) return Value::Bool(false);
      previous_cased = any = true;
    } else if (IsLower(c)) {
      if (!previous_cased) return Value::Bool(false);
      any = true;
    } else {
      previous_cased = false;
    }
  }
  return Value::Bool(any);
}

Value StrIsAscii(Runtime& rt, const Value& self, Args& args) {
  Params("isascii", args, {});
  rt.ChargeBytes(self.str().size());
  return Value::Bool(self.As<StrObj>().IsAscii());
}

Value StrIsPrintable(Runtime& rt, const Value& self, Args& args) {
  if (self.str().empty()) return Value::Bool(true);
  return AllOf<IsPrintable>(rt, self, args);
}

Value StrIsIdentifier(Runtime& rt, const Value& self, Args& args) {
  if (self.str().empty() || !IsIdentifierStart(CharAt(self.str(), 0, nullptr))) return Value::Bool(false);
  return AllOf<IsIdentifierPart>(rt, self, args);
}

// ---------------------------------------------------------------- strip, prefixes

template <bool left, bool right>
Value StrStrip(Runtime& rt, const Value& self, Args& args) {
  const Params p("strip", args, {"chars"});
  rt.ChargeBytes(self.str().size());
  if (p[0] == nullptr || p[0]->IsNone()) return rt.Piece(self, Strip(self.str(), nullptr, left, right));
  const std::string_view chars = rt.NeedStr(*p[0], "strip arg");
  if (chars.size() > 64) rt.Charge(self.str().size() / 64 * chars.size());
  return rt.Piece(self, Strip(self.str(), &chars, left, right));
}

// The part of self between the optional start and end arguments (code points), for find, count, startswith...
struct Window {
  std::string_view text;
  int64_t start = 0;  // in code points
  bool valid = true;  // false: start lies past the end, where Python finds not even ''
};

Window WindowOf(Runtime& rt, const Value& self, const Params& p) {
  rt.ChargeBytes(self.str().size());
  Window window{self.str()};
  if (p.OrNone(1).IsNone() && p.OrNone(2).IsNone()) return window;
  const int64_t length = self.As<StrObj>().NumCodePoints();
  const auto bound = [&](size_t i, int64_t otherwise) {
    if (p.OrNone(i).IsNone()) return otherwise;
    const int64_t given = rt.NeedInt(*p[i], "slice index");
    return given < 0 ? std::max<int64_t>(given + length, 0) : given;
  };
  window.start = bound(1, 0);
  const int64_t stop = std::min(bound(2, length), length);
  window.valid = window.start <= stop;
  if (!window.valid) {
    window.text = {};
    return window;
  }
  const size_t begin = ByteOffset(self.str(), window.start);
  window.text = self.str().substr(begin);
  window.text = window.text.substr(0, ByteOffset(window.text, stop - window.start));
  return window;
}

template <bool at_end>
Value StrAffix(Runtime& rt, const Value& self, Args& args) {
  const char* const name = at_end ? "endswith" : "startswith";
  const Params p(name, args, {"affix", "start", "end"}, 1);
  const Window window = WindowOf(rt, self, p);
  const auto matches = [&](const Value& affix) {
    rt.FailIfUndefined(affix);
    if (!affix.IsStr())
      RaiseType("{} first arg must be str or a tuple of str, not {}", name, TypeName(affix));
    rt.ChargeBytes(affix.str().size());
    return window.valid &&
           (at_end ? window.text.ends_with(affix.str()) : window.text.starts_with(affix.str()));
  };
  if (!p[0]->Is(Kind::kTuple)) return Value::Bool(matches(*p[0]));
  for (const Value& affix : p[0]->As<ListObj>().items) {
    rt.Charge();
    if (matches(affix)) return Value::Bool(true);
  }
  return Value::Bool(false);
}

Value StrRemovePrefix(Runtime& rt, const Value& self, Args& args) {
  const Params p("removeprefix", args, {"prefix"}, 1);
  const std::string_view prefix = rt.NeedStr(*p[0], "removeprefix() argument");
  if (!self.str().starts_with(prefix)) return self;
  return rt.Piece(self, self.str().substr(prefix.size()));
}

Value StrRemoveSuffix(Runtime& rt, const Value& self, Args& args) {
  const Params p("removesuffix", args, {"suffix"}, 1);
  const std::string_view suffix = rt.NeedStr(*p[0], "removesuffix() argument");
  if (!self.str().ends_with(suffix)) return self;
  return rt.Piece(self, self.str().substr(0, self.str().size() - suffix.size()));
}

// ---------------------------------------------------------------- search

template <bool last, bool must>
Value StrFind(Runtime& rt, const Value& self, Args& args) {
  const Params p(must ? "index" : "find", args, {"sub", "start", "end"}, 1);
  const std::string_view needle = rt.NeedStr(*p[0], "must be str: argument 1");
  const Window window = WindowOf(rt, self, p);
  const size_t found = !window.valid ? std::string_view::npos
                       : last        ? FindLast(window.text, needle)
                                     : Find(window.text, needle);
  if (found != std::string_view::npos)
    return Value::Int(window.start + CountChars(window.text.substr(0, found)));
  if (must) RaiseValue("substring not found");
  return Value::Int(-1);
}

Value StrCount(Runtime& rt, const Value& self, Args& args) {
  const Params p("count", args, {"sub", "start", "end"}, 1);
  const std::string_view needle = rt.NeedStr(*p[0], "must be str: argument 1");
  const Window window = WindowOf(rt, self, p);
  if (!window.valid) return Value::Int(0);
  if (needle.empty()) return Value::Int(CountChars(window.text) + 1);
  int64_t n = 0;
  for (size_t pos = 0; (pos = Find(window.text, needle, pos)) != std::string_view::npos;
       pos += needle.size()) {
    rt.Charge();
    ++n;
  }
  return Value::Int(n);
}

Value StrReplace(Runtime& rt, const Value& self, Args& args) {
  const Params p("replace", args, {"old", "new", "count"}, 2);
  const std::string_view s = self.str();
  const std::string_view old = rt.NeedStr(*p[0], "replace() argument 1");
  rt.NeedStr(*p[1], "replace() argument 2");
  const bool escape = IsMarkup(self) && !IsMarkup(*p[1]);
  const std::string fresh = escape ? EscapeHtml(rt, p[1]->str()) : std::string(p[1]->str());
  int64_t left = p[2] != nullptr ? rt.NeedInt(*p[2], "count") : -1;
  Builder out(rt);
  size_t pos = 0;
  if (old.empty()) {
    // Before every character and at the end.
    for (; left != 0 && pos < s.size(); --left) {
      rt.Charge();
      out.Append(fresh);
      const size_t n = CharSize(s, pos);
      out.Append(s.substr(pos, n));
      pos += n;
    }
    if (left != 0) out.Append(fresh);
  } else {
    rt.ChargeBytes(s.size() + old.size());
    for (; left != 0; --left) {
      const size_t found = Find(s, old, pos);
      if (found == std::string_view::npos) break;
      rt.Charge();
      out.Append(s.substr(pos, found - pos));
      out.Append(fresh);
      pos = found + old.size();
    }
    if (pos == 0) return self;
  }
  out.Append(s.substr(std::min(pos, s.size())));
  return out.Take(IsMarkup(self));
}

// ---------------------------------------------------------------- split, join

template <bool from_right>
Value StrSplit(Runtime& rt, const Value& self, Args& args) {
  const Params p(from_right ? "rsplit" : "split", args, {"sep", "maxsplit"});
  const int64_t limit = p[1] != nullptr ? rt.NeedInt(*p[1], "maxsplit") : -1;
  rt.ChargeBytes(self.str().size());
  ValueVec parts;
  const auto push = [&](std::string_view part) { rt.Push(parts, rt.Piece(self, part)); };
  if (p.OrNone(0).IsNone()) {
    SplitWhitespace(self.str(), limit, from_right, push);
  } else {
    const std::string_view separator = rt.NeedStr(*p[0], "separator");
    if (separator.empty()) RaiseValue("empty separator");
    SplitOn(self.str(), separator, limit, from_right, push);
  }
  if (from_right) std::reverse(parts.begin(), parts.end());
  return rt.List(std::move(parts));
}

Value StrSplitLines(Runtime& rt, const Value& self, Args& args) {
  const Params p("splitlines", args, {"keepends"});
  rt.ChargeBytes(self.str().size() * 4);
  ValueVec lines;
  SplitLines(self.str(), p.Flag(0), [&](std::string_view line) { rt.Push(lines, rt.Piece(self, line)); });
  return rt.List(std::move(lines));
}

template <bool from_right>
Value StrPartition(Runtime& rt, const Value& self, Args& args) {
  const Params p("partition", args, {"sep"}, 1);
  const std::string_view separator = rt.NeedStr(*p[0], "separator");
  if (separator.empty()) RaiseValue("empty separator");
  const std::string_view s = self.str();
  rt.ChargeBytes(s.size());
  const size_t at = from_right ? FindLast(s, separator) : Find(s, separator);
  const Value empty = rt.Str("", IsMarkup(self));
  if (at == std::string_view::npos) {
    return from_right ? rt.Tuple({empty, empty, self}) : rt.Tuple({self, empty, empty});
  }
  return rt.Tuple({rt.Piece(self, s.substr(0, at)), rt.Piece(self, separator),
                   rt.Piece(self, s.substr(at + separator.size()))});
}

Value StrJoin(Runtime& rt, const Value& self, Args& args) {
  const Params p("join", args, {"iterable"}, 1);
  if (!Iterator::IsIterable(*p[0])) RaiseType("can only join an iterable");
  Iterator it(rt, *p[0]);
  Builder out(rt);
  Value item;
  for (int64_t i = 0; it.Next(item); ++i) {
    if (!item.IsStr()) RaiseType("sequence item {}: expected str instance, {} found", i, TypeName(item));
    if (i > 0) out.Append(self.str());
    if (IsMarkup(self) && !IsMarkup(item)) {
      out.Append(EscapeHtml(rt, item.str()));
    } else {
      out.Append(item.str());
    }
  }
  return out.Take(IsMarkup(self));
}

// ---------------------------------------------------------------- padding

enum class Side { kLeft, kRight, kCenter };

template <Side side>
Value StrJustify(Runtime& rt, const Value& self, Args& args) {
  const Params p("justify", args, {"width", "fillchar"}, 1);
  const int64_t width = rt.NeedInt(*p[0], "width");
  const std::string_view fill = p[1] != nullptr ? rt.NeedStr(*p[1], "fill character") : " ";
  if (CountChars(fill) != 1) RaiseType("The fill character must be exactly one character long");
  const int64_t padding = width - rt.Length(self);
  if (padding <= 0) return self;
  if (padding > static_cast<int64_t>(rt.limits().max_value_bytes)) rt.TooLarge("string");
  // CPython puts the odd one left when the width is odd, too.
  const int64_t left = side == Side::kRight  ? padding
                       : side == Side::kLeft ? 0
                                             : padding / 2 + (padding & width & 1);
  Builder out(rt);
  for (int64_t i = 0; i < left; ++i) out.Append(fill);
  out.Append(self.str());
  for (int64_t i = left; i < padding; ++i) out.Append(fill);
  return out.Take(IsMarkup(self));
}

Value StrZfill(Runtime& rt, const Value& self, Args& args) {
  const Params p("zfill", args, {"width"}, 1);
  const int64_t padding = rt.NeedInt(*p[0], "width") - rt.Length(self);
  if (padding <= 0) return self;
  const std::string_view s = self.str();
  const size_t sign = !s.empty() && (s[0] == '+' || s[0] == '-') ? 1 : 0;
  Builder out(rt);
  out.Append(s.substr(0, sign));
  out.Append(static_cast<size_t>(padding), '0');
  out.Append(s.substr(sign));
  return out.Take(IsMarkup(self));
}

Value StrExpandTabs(Runtime& rt, const Value& self, Args& args) {
  const Params p("expandtabs", args, {"tabsize"});
  const int64_t tab = p[0] != nullptr ? rt.NeedInt(*p[0], "tabsize") : 8;
  const std::string_view s = self.str();
  Builder out(rt);
  int64_t column = 0;
  for (size_t pos = 0; pos < s.size();) {
    const size_t n = CharSize(s, pos);
    if (s[pos] == '\t') {
      const int64_t spaces = tab > 0 ? tab - column % tab : 0;
      out.Append(static_cast<size_t>(spaces), ' ');
      column += spaces;
    } else {
      column = s[pos] == '\n' || s[pos] == '\r' ? 0 : column + 1;
      out.Append(s.substr(pos, n));
    }
    pos += n;
  }
  return out.Take(IsMarkup(self));
}

Value StrFormatMap(Runtime& rt, const Value& self, Args& args) {
  if (!args.kw.empty()) RaiseType("format_map() takes no keyword arguments");
  const Params p("format_map", args, {"mapping"}, 1);
  if (!p[0]->Is(Kind::kDict)) RaiseType("format_map() argument must be a mapping");
  Args call;
  call.held = *p[0];
  for (const auto& [key, value] : call.held.As<DictObj>().items) {
    rt.Charge();
    if (key.IsStr()) call.kw.emplace_back(key.str(), value);
  }
  return StrFormat(rt, self, call);
}

Value StrEncode(Runtime&, const Value&, Args&) {
  RaiseType("bytes are not supported in chat templates");
}

constexpr Method kMethods[] = {
    {"capitalize", Mapped<Capitalize>},
    {"casefold", Mapped<CaseFold>},
    {"center", StrJustify<Side::kCenter>},
    {"count", StrCount},
    {"encode", StrEncode},
    {"endswith", StrAffix<true>},
    {"expandtabs", StrExpandTabs},
    {"find", StrFind<false, false>},
    {"format", StrFormat},
    {"format_map", StrFormatMap},
    {"index", StrFind<false, true>},
    {"isalnum", AllOf<IsAlnum>},
    {"isalpha", AllOf<IsAlpha>},
    {"isascii", StrIsAscii},
    {"isdecimal", AllOf<IsDecimal>},
    {"isdigit", AllOf<IsDigit>},
    {"isidentifier", StrIsIdentifier},
    {"islower", HasCase<true>},
    {"isnumeric", AllOf<IsNumeric>},
    {"isprintable", StrIsPrintable},
    {"isspace", AllOf<IsSpace>},
    {"istitle", StrIsTitle},
    {"isupper", HasCase<false>},
    {"join", StrJoin},
    {"ljust", StrJustify<Side::kLeft>},
    {"lower", Mapped<Lower>},
    {"lstrip", StrStrip<true, false>},
    {"partition", StrPartition<false>},
    {"removeprefix", StrRemovePrefix},
    {"removesuffix", StrRemoveSuffix},
    {"replace", StrReplace},
    {"rfind", StrFind<true, false>},
    {"rindex", StrFind<true, true>},
    {"rjust", StrJustify<Side::kRight>},
    {"rpartition", StrPartition<true>},
    {"rsplit", StrSplit<true>},
    {"rstrip", StrStrip<false, true>},
    {"split", StrSplit<false>},
    {"splitlines", StrSplitLines},
    {"startswith", StrAffix<false>},
    {"strip", StrStrip<true, true>},
    {"swapcase", Mapped<SwapCase>},
    {"title", Mapped<Title>},
    {"upper", Mapped<Upper>},
    {"zfill", StrZfill},
};

}  // namespace

std::span<const Method> StrMethods() {
  return kMethods;
}

}  // namespace cadre::jinja
