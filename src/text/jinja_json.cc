// The tojson filter as the transformers library defines it: json.dumps(x, ensure_ascii=False, indent,
// separators, sort_keys), without HTML escapes.
#include <algorithm>
#include <cmath>

#include "text/jinja_runtime.h"
#include "text/jinja_sort.h"
#include "text/jinja_text.h"

namespace cadre::jinja {
namespace {

class Writer {
 public:
  Writer(Runtime& rt, const Params& p) : rt_(rt), ascii_(p.Flag(0)), sort_(p.Flag(3)), out_(rt) {
    if (const Value& indent = p.OrNone(1); indent.IsStr()) {
      pretty_ = true;
      indent_ = indent.str();
    } else if (!indent.IsNone()) {
      pretty_ = true;
      const int64_t width = rt.NeedInt(indent, "indent");
      if (width > 0) {
        rt.CheckStringSize(static_cast<size_t>(width));
        indent_.assign(static_cast<size_t>(width), ' ');
      }
    }
    item_ = pretty_ ? "," : ", ";
    if (const Value& separators = p.OrNone(2); !separators.IsNone()) {
      const ValueVec pair = ToVector(rt, separators);
      if (pair.size() != 2) RaiseValue("separators must be an (item, key) pair");
      item_ = rt.NeedStr(pair[0], "item separator");
      key_ = rt.NeedStr(pair[1], "key separator");
    }
  }

  void Write(const Value& v, size_t depth) {
    rt_.Charge();
    switch (v.kind()) {
      case Kind::kStr:
        WriteString(v.str());
        break;
      case Kind::kList:
      case Kind::kTuple:
        WriteList(v.As<ListObj>().items, depth);
        break;
      case Kind::kDict:
        WriteDict(v.As<DictObj>().items, depth);
        break;
      default: {
        std::string text;
        if (!Scalar(v, text)) RaiseType("Object of type {} is not JSON serializable", TypeName(v));
        out_.Append(text);
      }
    }
  }

  Value Take() { return out_.Take(); }

 private:
  // None, booleans and numbers; also as keys.
  bool Scalar(const Value& v, std::string& text) {
    switch (v.kind()) {
      case Kind::kNone:
        text = "null";
        return true;
      case Kind::kBool:
        text = v.AsInt() != 0 ? "true" : "false";
        return true;
      case Kind::kInt:
        text = rt_.ToRepr(v);
        return true;
      case Kind::kFloat:
        text = std::isnan(v.AsDouble())   ? "NaN"
               : std::isinf(v.AsDouble()) ? (v.AsDouble() > 0 ? "Infinity" : "-Infinity")
                                          : FormatFloat(v.AsDouble());
        return true;
      default:
        return false;
    }
  }

  void WriteString(std::string_view s) {
    if (!ascii_ || s.find_first_not_of(kPlainAscii) == std::string_view::npos) {
      // In pieces, so that what must not be written is never made: an escape is six times its character.
      constexpr size_t kPiece = 64 * 1024;
      out_.Append("\"");
      std::string text;
      for (; !s.empty(); s.remove_prefix(std::min(kPiece, s.size()))) {
        text.clear();
        AppendJsonString(text, s.substr(0, kPiece));
        out_.Append(std::string_view(text).substr(1, text.size() - 2));
      }
      return out_.Append("\"");
    }
    std::string text = "\"";
    for (size_t pos = 0; pos < s.size();) {
      size_t n = 0;
      const char32_t c = CharAt(s, pos, &n);
      if (c >= 0x10000) {
        text += Format("\\u{:04x}\\u{:04x}", 0xD7C0 + (static_cast<uint32_t>(c) >> 10),
                       0xDC00 + (static_cast<uint32_t>(c) & 0x3FF));
      } else if (c >= 0x7F) {
        text += Format("\\u{:04x}", static_cast<uint32_t>(c));
      } else {
        std::string one;
        AppendJsonString(one, s.substr(pos, n));
        text += one.substr(1, one.size() - 2);
      }
      pos += n;
      rt_.CheckStringSize(text.size());
    }
    out_.Append(text + '"');
  }

  void Line(size_t depth) {
    if (!pretty_) return;
    out_.Append("\n");
    for (size_t i = 0; i < depth; ++i) out_.Append(indent_);
  }

  void WriteList(const ValueVec& items, size_t depth) {
    if (items.empty()) return out_.Append("[]");
    const Runtime::Level level(rt_);
    out_.Append("[");
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) out_.Append(item_);
      Line(depth + 1);
      Write(items[i], depth + 1);
    }
    Line(depth);
    out_.Append("]");
  }

  void WriteDict(const DictObj::Items& items, size_t depth) {
    if (items.empty()) return out_.Append("{}");
    const Runtime::Level level(rt_);
    out_.Append("{");
    bool first = true;
    const auto member = [&](const Value& key, const Value& value) {
      if (!first) out_.Append(item_);
      first = false;
      Line(depth + 1);
      std::string text;
      if (key.IsStr()) {
        WriteString(key.str());
      } else if (Scalar(key, text)) {
        WriteString(text);
      } else {
        RaiseType("keys must be str, int, float, bool or None, not {}", TypeName(key));
      }
      out_.Append(key_);
      Write(value, depth + 1);
    };
    if (sort_) {
      const std::vector<uint32_t> order = StableOrder(
          items.size(), [&](uint32_t x, uint32_t y) { return rt_.Less(items[x].first, items[y].first); });
      for (const uint32_t i : order) member(items[i].first, items[i].second);
    } else {
      for (const auto& [key, value] : items) member(key, value);
    }
    Line(depth);
    out_.Append("}");
  }

  static constexpr std::string_view kPlainAscii =
      " !#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[]^_`abcdefghijklmnopqrstuvwxyz{|}~";

  Runtime& rt_;
  const bool ascii_;
  const bool sort_;
  bool pretty_ = false;
  std::string indent_;
  std::string item_;
  std::string key_ = ": ";
  Builder out_;
};

}  // namespace

Value ToJson(Runtime& rt, const Value& v, Args& args) {
  const Params p("tojson", args, {"ensure_ascii", "indent", "separators", "sort_keys"});
  Writer writer(rt, p);
  writer.Write(v, 0);
  return writer.Take();
}

}  // namespace cadre::jinja
