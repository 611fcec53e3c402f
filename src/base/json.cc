#include "base/json.h"

#include <boost/json/basic_parser_impl.hpp>
#include <boost/json/src.hpp>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <unordered_map>

#include "base/check.h"

namespace cadre {
namespace {

namespace bj = boost::json;

// Builds Json values straight from the parser's events: a key is held until its value is complete.
class Builder {
 public:
  static constexpr size_t max_object_size = SIZE_MAX;
  static constexpr size_t max_array_size = SIZE_MAX;
  static constexpr size_t max_key_size = SIZE_MAX;
  static constexpr size_t max_string_size = SIZE_MAX;

  Json root;

  bool on_document_begin(bj::error_code&) { return true; }
  bool on_document_end(bj::error_code&) { return true; }
  bool on_object_begin(bj::error_code&) { return Open(Json(Json::Object())); }
  bool on_object_end(size_t, bj::error_code&) {
    RemoveRepeatedKeys(stack_.back().value.AsObject());
    return Close();
  }
  bool on_array_begin(bj::error_code&) { return Open(Json(Json::Array())); }
  bool on_array_end(size_t, bj::error_code&) { return Close(); }
  bool on_key_part(bj::string_view s, size_t, bj::error_code&) { return Part(s); }
  bool on_key(bj::string_view s, size_t, bj::error_code&) {
    Part(s);
    stack_.back().key = std::move(text_);
    text_.clear();
    return true;
  }
  bool on_string_part(bj::string_view s, size_t, bj::error_code&) { return Part(s); }
  bool on_string(bj::string_view s, size_t, bj::error_code&) {
    Part(s);
    Add(Json(std::move(text_)));
    text_.clear();
    return true;
  }
  bool on_number_part(bj::string_view, bj::error_code&) { return true; }
  bool on_int64(int64_t i, bj::string_view, bj::error_code&) { return Add(Json(i)); }
  bool on_uint64(uint64_t u, bj::string_view, bj::error_code&) { return Add(Json(static_cast<double>(u))); }
  bool on_double(double d, bj::string_view, bj::error_code&) { return Add(Json(d)); }
  bool on_bool(bool b, bj::error_code&) { return Add(Json(b)); }
  bool on_null(bj::error_code&) { return Add(Json()); }
  bool on_comment_part(bj::string_view, bj::error_code&) { return true; }
  bool on_comment(bj::string_view, bj::error_code&) { return true; }

 private:
  struct Level {
    Json value;
    std::string key;
  };

  bool Part(bj::string_view s) {
    text_.append(s.data(), s.size());
    return true;
  }
  bool Open(Json container) {
    stack_.push_back({std::move(container), {}});
    return true;
  }
  bool Close() {
    Json done = std::move(stack_.back().value);
    stack_.pop_back();
    return Add(std::move(done));
  }
  bool Add(Json value) {
    if (stack_.empty()) {
      root = std::move(value);
    } else if (Level& top = stack_.back(); top.value.is_array()) {
      top.value.AsArray().push_back(std::move(value));
    } else {
      top.value.AsObject().emplace_back(std::move(top.key), std::move(value));
    }
    return true;
  }
  static void RemoveRepeatedKeys(Json::Object& object) {
    if (object.size() <= 16) {
      for (size_t i = 1; i < object.size(); ++i) {
        for (size_t j = 0; j < i; ++j) {
          if (object[j].first != object[i].first) continue;
          object[j].second = std::move(object[i].second);
          object.erase(object.begin() + static_cast<int64_t>(i--));
          break;
        }
      }
      return;
    }
    std::unordered_map<std::string_view, size_t> first;
    std::vector<bool> repeated(object.size());
    bool any = false;
    for (size_t i = 0; i < object.size(); ++i) {
      const auto [place, is_new] = first.emplace(object[i].first, i);
      if (is_new) continue;
      object[place->second].second = std::move(object[i].second);
      repeated[i] = any = true;
    }
    if (!any) return;
    Json::Object kept;
    for (size_t i = 0; i < object.size(); ++i) {
      if (!repeated[i]) kept.push_back(std::move(object[i]));
    }
    object = std::move(kept);
  }

  std::vector<Level> stack_;
  std::string text_;
};

void DumpIndented(const Json& json, int indent, std::string& out) {
  const auto line = [&](int spaces) {
    out += '\n';
    out.append(static_cast<size_t>(spaces), ' ');
  };
  if (json.is_array() && !json.AsArray().empty()) {
    out += '[';
    for (size_t i = 0; i < json.AsArray().size(); ++i) {
      if (i > 0) out += ',';
      line(indent + 2);
      DumpIndented(json.AsArray()[i], indent + 2, out);
    }
    line(indent);
    out += ']';
  } else if (json.is_object() && !json.AsObject().empty()) {
    out += '{';
    for (size_t i = 0; i < json.AsObject().size(); ++i) {
      if (i > 0) out += ',';
      line(indent + 2);
      AppendJsonString(out, json.AsObject()[i].first);
      out += ": ";
      DumpIndented(json.AsObject()[i].second, indent + 2, out);
    }
    line(indent);
    out += '}';
  } else {
    json.DumpTo(out);
  }
}

// The code unit of an escape \uXXXX that begins at `at`; -1 if none does.
int EscapedUnit(std::string_view text, size_t at) {
  if (at + 6 > text.size() || text[at] != '\\' || text[at + 1] != 'u') return -1;
  int unit = 0;
  const auto [end, error] = std::from_chars(text.data() + at + 2, text.data() + at + 6, unit, 16);
  return error == std::errc() && end == text.data() + at + 6 ? unit : -1;
}

// Where, shortly before a parser's stop, half of a surrogate pair stands alone; npos if nowhere.
size_t LoneSurrogate(std::string_view text, size_t stop) {
  const auto is_high = [&](size_t at) { return (EscapedUnit(text, at) & ~0x3ff) == 0xd800; };
  const auto is_low = [&](size_t at) { return (EscapedUnit(text, at) & ~0x3ff) == 0xdc00; };
  for (size_t at = stop - std::min<size_t>(stop, 12); at < stop; ++at) {
    if (is_high(at) && !is_low(at + 6)) return at;
    if (is_low(at) && (at < 6 || !is_high(at - 6))) return at;
  }
  return std::string_view::npos;
}

}  // namespace

Result<Json> Json::Parse(std::string_view text, int max_depth) {
  bj::parse_options options;
  options.max_depth = static_cast<size_t>(max_depth);
  bj::basic_parser<Builder> parser(options);
  bj::error_code error;
  const size_t used = parser.write_some(false, text.data(), text.size(), error);
  if (!error && used < text.size()) error = bj::error::extra_data;
  if (!error) return std::move(parser.handler().root);
  if (const size_t at = LoneSurrogate(text, used); at != std::string_view::npos) {
    return Fail(Code::kInvalidArgument,
                "not valid JSON at byte {}: the escape {} is one half of a surrogate pair without the other", at,
                text.substr(at, 6));
  }
  return Fail(Code::kInvalidArgument, "not valid JSON at byte {}: {}", used, error.message());
}

const char* Json::TypeName() const {
  constexpr const char* kNames[] = {"null", "boolean", "integer", "number", "string", "array", "object"};
  return kNames[value_.index()];
}

bool Json::AsBool() const {
  CADRE_CHECK(is_bool());
  return std::get<bool>(value_);
}
int64_t Json::AsInt() const {
  CADRE_CHECK(is_int());
  return std::get<int64_t>(value_);
}
double Json::AsDouble() const { return is_int() ? static_cast<double>(AsInt()) : std::get<double>(value_); }
const std::string& Json::AsString() const {
  CADRE_CHECK(is_string());
  return std::get<std::string>(value_);
}
const Json::Array& Json::AsArray() const {
  CADRE_CHECK(is_array());
  return std::get<Array>(value_);
}
Json::Array& Json::AsArray() {
  CADRE_CHECK(is_array());
  return std::get<Array>(value_);
}
const Json::Object& Json::AsObject() const {
  CADRE_CHECK(is_object());
  return std::get<Object>(value_);
}
Json::Object& Json::AsObject() {
  CADRE_CHECK(is_object());
  return std::get<Object>(value_);
}

const Json* Json::Find(std::string_view key) const {
  if (!is_object()) return nullptr;
  for (const auto& [name, value] : AsObject()) {
    if (name == key) return &value;
  }
  return nullptr;
}
Json* Json::Find(std::string_view key) { return const_cast<Json*>(std::as_const(*this).Find(key)); }

void Json::Set(std::string key, Json value) {
  if (is_null()) value_ = Object();
  if (Json* found = Find(key)) {
    *found = std::move(value);
  } else {
    AsObject().emplace_back(std::move(key), std::move(value));
  }
}

void Json::Push(Json value) {
  if (is_null()) value_ = Array();
  AsArray().push_back(std::move(value));
}

void AppendJsonString(std::string& out, std::string_view text) {
  constexpr char kHex[] = "0123456789abcdef";
  out += '"';
  size_t plain = 0;  // start of the run of characters that need no escape
  for (size_t i = 0; i < text.size(); ++i) {
    const unsigned char c = static_cast<unsigned char>(text[i]);
    if (c >= 0x20 && c != '"' && c != '\\') continue;
    out.append(text, plain, i - plain);
    plain = i + 1;
    switch (c) {
      case '"': out += "\\\""; break;
      case '\\': out += "\\\\"; break;
      case '\n': out += "\\n"; break;
      case '\r': out += "\\r"; break;
      case '\t': out += "\\t"; break;
      case '\b': out += "\\b"; break;
      case '\f': out += "\\f"; break;
      default:
        out += "\\u00";
        out += kHex[c >> 4];
        out += kHex[c & 15];
    }
  }
  out.append(text, plain);
  out += '"';
}

void AppendJsonNumber(std::string& out, double number) {
  if (!std::isfinite(number)) {
    out += "null";
    return;
  }
  char buffer[32];
  const auto end = std::to_chars(buffer, buffer + sizeof(buffer), number).ptr;
  const std::string_view text(buffer, static_cast<size_t>(end - buffer));
  out += text;
  if (text.find_first_of(".e") == std::string_view::npos) out += ".0";  // reads back as a number, not an integer
}

void Json::DumpTo(std::string& out) const {
  if (is_null()) {
    out += "null";
  } else if (is_bool()) {
    out += AsBool() ? "true" : "false";
  } else if (is_int()) {
    fmt::format_to(std::back_inserter(out), "{}", AsInt());
  } else if (is_double()) {
    AppendJsonNumber(out, AsDouble());
  } else if (is_string()) {
    AppendJsonString(out, AsString());
  } else if (is_array()) {
    out += '[';
    for (size_t i = 0; i < AsArray().size(); ++i) {
      if (i > 0) out += ',';
      AsArray()[i].DumpTo(out);
    }
    out += ']';
  } else {
    out += '{';
    for (size_t i = 0; i < AsObject().size(); ++i) {
      if (i > 0) out += ',';
      AppendJsonString(out, AsObject()[i].first);
      out += ':';
      AsObject()[i].second.DumpTo(out);
    }
    out += '}';
  }
}

std::string Json::Dump() const {
  std::string out;
  DumpTo(out);
  return out;
}

std::string Json::DumpPretty() const {
  std::string out;
  DumpIndented(*this, 0, out);
  return out;
}

}  // namespace cadre
