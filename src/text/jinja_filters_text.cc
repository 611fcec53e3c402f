#include "text/jinja_filters.h"
#include "text/jinja_text.h"

namespace cadre::jinja {
namespace {

bool IsMarkup(const Value& v) {
  return v.IsStr() && v.As<StrObj>().markup;
}

// soft_str(v) as text, kept alive by `hold`.
std::string_view Soft(Runtime& rt, const Value& v, Value& hold) {
  hold = rt.SoftStr(v);
  rt.ChargeBytes(hold.str().size() * 4);
  return hold.str();
}

void AppendUrlQuoted(Builder& out, std::string_view text, bool for_query) {
  constexpr char kHex[] = "0123456789ABCDEF";
  for (const char ch : text) {
    const unsigned char c = static_cast<unsigned char>(ch);
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '_' || c == '.' || c == '-' || c == '~' || (c == '/' && !for_query);
    if (plain) {
      out.Append(1, ch);
    } else if (c == ' ' && for_query) {
      out.Append(1, '+');
    } else {
      const char quoted[] = {'%', kHex[c >> 4], kHex[c & 15]};
      out.Append(std::string_view(quoted, 3));
    }
  }
}

}  // namespace

std::string EscapeHtml(Runtime& rt, std::string_view text) {
  Builder out(rt);
  size_t plain = 0;  // start of the run that needs no escape
  for (size_t i = 0; i < text.size(); ++i) {
    std::string_view escape;
    switch (text[i]) {
      case '&':
        escape = "&amp;";
        break;
      case '<':
        escape = "&lt;";
        break;
      case '>':
        escape = "&gt;";
        break;
      case '\'':
        escape = "&#39;";
        break;
      case '"':
        escape = "&#34;";
        break;
      default:
        continue;
    }
    out.Append(text.substr(plain, i - plain));
    out.Append(escape);
    plain = i + 1;
  }
  out.Append(text.substr(plain));
  return std::move(out.text());
}

Value FilterCapitalize(Runtime& rt, const Value& v, Args& args) {
  Params("capitalize", args, {});
  Value hold;
  return rt.Str(Capitalize(Soft(rt, v, hold)), IsMarkup(v));
}

Value FilterLower(Runtime& rt, const Value& v, Args& args) {
  Params("lower", args, {});
  Value hold;
  return rt.Str(Lower(Soft(rt, v, hold)), IsMarkup(v));
}

Value FilterUpper(Runtime& rt, const Value& v, Args& args) {
  Params("upper", args, {});
  Value hold;
  return rt.Str(Upper(Soft(rt, v, hold)), IsMarkup(v));
}

Value FilterTitle(Runtime& rt, const Value& v, Args& args) {
  Params("title", args, {});
  Value hold;
  const std::string_view text = Soft(rt, v, hold);
  // Jinja's own rule: a word begins after one of  - ( { [ <  and space, not at every letter after a
  // non-letter.
  std::string out;
  for (size_t pos = 0; pos < text.size();) {
    size_t end = pos;
    const auto is_break = [&](size_t at) {
      return IsSpace(CharAt(text, at, nullptr)) ||
             std::string_view("-({[<").find(text[at]) != std::string_view::npos;
    };
    const bool breaks = is_break(pos);
    while (end < text.size() && is_break(end) == breaks) end += CharSize(text, end);
    const size_t first = CharSize(text, pos);
    out += Upper(text.substr(pos, first));
    out += Lower(text.substr(pos + first, end - pos - first));
    pos = end;
  }
  return rt.Str(std::move(out));
}

Value FilterTrim(Runtime& rt, const Value& v, Args& args) {
  const Params p("trim", args, {"chars"});
  const Value text = rt.SoftStr(v);
  rt.ChargeBytes(text.str().size());
  if (p[0] == nullptr || p[0]->IsNone()) return rt.Piece(text, Strip(text.str(), nullptr, true, true));
  const std::string_view chars = rt.NeedStr(*p[0], "strip arg");
  rt.Charge(text.str().size() / 8 * (1 + chars.size() / 64));
  return rt.Piece(text, Strip(text.str(), &chars, true, true));
}

Value FilterString(Runtime& rt, const Value& v, Args& args) {
  Params("string", args, {});
  return rt.SoftStr(v);
}

Value FilterSafe(Runtime& rt, const Value& v, Args& args) {
  Params("safe", args, {});
  if (IsMarkup(v)) return v;
  return rt.Str(rt.ToStr(v), true);
}

Value FilterEscape(Runtime& rt, const Value& v, Args& args) {
  Params("escape", args, {});
  if (IsMarkup(v)) return v;
  return FilterForceEscape(rt, v, args);
}

Value FilterForceEscape(Runtime& rt, const Value& v, Args& args) {
  Params("forceescape", args, {});
  Value hold;
  return rt.Str(EscapeHtml(rt, Soft(rt, v, hold)), true);
}

Value FilterReplace(Runtime& rt, const Value& v, Args& args) {
  const Params p("replace", args, {"old", "new", "count"}, 2);
  const Value text = rt.Str(rt.ToStr(v));
  Args call;
  call.pos = {rt.Str(rt.ToStr(*p[0])), rt.Str(rt.ToStr(*p[1]))};
  if (p[2] != nullptr && !p[2]->IsNone()) call.pos.push_back(*p[2]);
  return FindMethod(MethodKind(text), "replace")->function(rt, text, call);
}

Value FilterCenter(Runtime& rt, const Value& v, Args& args) {
  const Params p("center", args, {"width"});
  const Value text = rt.SoftStr(v);
  Args call;
  call.pos = {p[0] != nullptr ? *p[0] : Value::Int(80)};
  return FindMethod(MethodKind(text), "center")->function(rt, text, call);
}

Value FilterFormat(Runtime& rt, const Value& v, Args& args) {
  if (!args.pos.empty() && !args.kw.empty()) {
    Raise(EvalError::Kind::kTemplate, "can't handle positional and keyword arguments at the same time");
  }
  const Value pattern = rt.SoftStr(v);
  if (args.kw.empty()) return PercentFormat(rt, pattern, rt.Tuple(args.pos));
  DictObj::Items items;
  for (const auto& [name, value] : args.kw) items.emplace_back(rt.Str(std::string(name)), value);
  return PercentFormat(rt, pattern, rt.Dict(std::move(items)));
}

Value FilterIndent(Runtime& rt, const Value& v, Args& args) {
  const Params p("indent", args, {"width", "first", "blank"});
  rt.FailIfUndefined(v);
  if (!v.IsStr()) RaiseType("unsupported operand type(s) for +=: '{}' and 'str'", TypeName(v));
  std::string indention(4, ' ');
  if (p[0] != nullptr) {
    if (p[0]->IsStr()) {
      indention = p[0]->str();
    } else {
      const int64_t width = std::max<int64_t>(rt.NeedInt(*p[0], "width"), 0);
      rt.CheckStringSize(static_cast<size_t>(width));
      indention.assign(static_cast<size_t>(width), ' ');
    }
  }
  const bool blank = p.Flag(2);
  Builder out(rt);
  if (p.Flag(1)) out.Append(indention);
  bool first_line = true;
  const std::string text = std::string(v.str()) + "\n";
  SplitLines(text, false, [&](std::string_view line) {
    rt.Charge();
    if (!first_line) {
      out.Append("\n");
      if (blank || !line.empty()) out.Append(indention);
    }
    first_line = false;
    out.Append(line);
  });
  return out.Take(IsMarkup(v));
}

Value FilterTruncate(Runtime& rt, const Value& v, Args& args) {
  const Params p("truncate", args, {"length", "killwords", "end", "leeway"});
  const int64_t length = p[0] != nullptr ? rt.NeedInt(*p[0], "length") : 255;
  const std::string_view end = p[2] != nullptr ? rt.NeedStr(*p[2], "end") : "...";
  const int64_t leeway = p[3] != nullptr && !p[3]->IsNone() ? rt.NeedInt(*p[3], "leeway") : 5;
  const int64_t end_length = CountChars(end);
  if (length < end_length) RaiseValue("expected length >= {}, got {}", end_length, length);
  if (leeway < 0) RaiseValue("expected leeway >= 0, got {}", leeway);
  if (length >= INT32_MAX || leeway >= INT32_MAX || rt.Length(v) <= length + leeway) return v;
  rt.NeedStr(v, "truncate input");
  std::string_view kept = v.str().substr(0, ByteOffset(v.str(), length - end_length));
  if (!p.Flag(1)) {
    const size_t space = kept.rfind(' ');
    if (space != std::string_view::npos) kept = kept.substr(0, space);
  }
  return rt.Str(std::string(kept) + std::string(end), IsMarkup(v));
}

Value FilterWordCount(Runtime& rt, const Value& v, Args& args) {
  Params("wordcount", args, {});
  Value hold;
  const std::string_view text = Soft(rt, v, hold);
  int64_t words = 0;
  bool in_word = false;
  for (size_t pos = 0; pos < text.size();) {
    size_t n = 0;
    const char32_t c = CharAt(text, pos, &n);
    const bool is_word = c == '_' || IsAlpha(c) || IsNumeric(c);
    words += is_word && !in_word;
    in_word = is_word;
    pos += n;
  }
  return Value::Int(words);
}

Value FilterStripTags(Runtime& rt, const Value& v, Args& args) {
  Params("striptags", args, {});
  Value hold;
  const std::string_view text = Soft(rt, v, hold);
  // Comments first, then tags; an opening without a closing stays.
  const auto remove = [](std::string_view from, std::string_view open, std::string_view close) {
    std::string out;
    size_t pos = 0;
    while (true) {
      const size_t begin = Find(from, open, pos);
      const size_t end = begin == std::string_view::npos ? begin : Find(from, close, begin + open.size());
      if (end == std::string_view::npos) break;
      out += from.substr(pos, begin - pos);
      pos = end + close.size();
    }
    out += from.substr(pos);
    return out;
  };
  const std::string plain = remove(remove(text, "<!--", "-->"), "<", ">");
  Builder out(rt);
  SplitWhitespace(plain, -1, false, [&](std::string_view word) {
    if (!out.text().empty()) out.Append(" ");
    // Markup.striptags also resolves entities; the five that escape() makes are enough to undo it.
    size_t pos = 0;
    while (pos < word.size()) {
      constexpr std::pair<std::string_view, std::string_view> kEntities[] = {
          {"&amp;", "&"}, {"&lt;", "<"}, {"&gt;", ">"}, {"&#39;", "'"}, {"&#34;", "\""}, {"&quot;", "\""}};
      bool found = false;
      for (const auto& [entity, character] : kEntities) {
        if (word[pos] != '&' || !word.substr(pos).starts_with(entity)) continue;
        out.Append(character);
        pos += entity.size();
        found = true;
        break;
      }
      if (!found) out.Append(1, word[pos++]);
    }
  });
  return out.Take();
}

Value FilterUrlEncode(Runtime& rt, const Value& v, Args& args) {
  Params("urlencode", args, {});
  Builder out(rt);
  if (v.IsStr() || !Iterator::IsIterable(v)) {
    AppendUrlQuoted(out, rt.ToStr(v), false);
    return out.Take();
  }
  Args none;
  Iterator it(rt, v.Is(Kind::kDict) ? FilterItems(rt, v, none) : v);
  Value item;
  while (it.Next(item)) {
    const ValueVec pair = ToVector(rt, item);
    if (pair.size() != 2) RaiseValue("urlencode needs (key, value) pairs");
    if (!out.text().empty()) out.Append("&");
    AppendUrlQuoted(out, rt.ToStr(pair[0]), true);
    out.Append("=");
    AppendUrlQuoted(out, rt.ToStr(pair[1]), true);
  }
  return out.Take();
}

Value FilterXmlAttr(Runtime& rt, const Value& v, Args& args) {
  const Params p("xmlattr", args, {"autospace"});
  rt.FailIfUndefined(v);
  if (!v.Is(Kind::kDict)) RaiseType("'{}' object has no attribute 'items'", TypeName(v));
  Builder out(rt);
  for (const auto& [key, value] : v.As<DictObj>().items) {
    if (value.IsNone() || value.IsUndefined()) continue;
    const std::string name = rt.ToStr(key);
    if (name.find_first_of(" \t\n\r\f\v/>=") != std::string::npos) {
      RaiseValue("Invalid character in attribute name: {}", rt.ToRepr(key));
    }
    if (!out.text().empty() || p.Flag(0, true)) out.Append(" ");
    out.Append(EscapeHtml(rt, name));
    out.Append("=\"");
    out.Append(IsMarkup(value) ? std::string(value.str()) : EscapeHtml(rt, rt.ToStr(value)));
    out.Append("\"");
  }
  return out.Take();
}

}  // namespace cadre::jinja
