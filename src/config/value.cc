#include "config/value.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/check.h"

namespace cadre::config {
namespace {

Result<bool> ParseBool(std::string_view text) {
  std::string lower(text);
  std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return std::tolower(c); });
  if (lower == "true" || lower == "1" || lower == "yes" || lower == "on") return true;
  if (lower == "false" || lower == "0" || lower == "no" || lower == "off") return false;
  return Fail(Code::kInvalidArgument, "'{}' is neither true nor false", text);
}

std::unexpected<Error> Wrong(std::string_view what, Type type, std::string_view text,
                             std::string_view why = "") {
  return FailParam(Code::kInvalidArgument, std::string(what), "{} wants {}, not '{}'{}{}", what,
                   TypeText(type), text, why.empty() ? "" : ": ", why);
}

template <typename T>
Result<Json> Checked(const Setting& setting, const Result<T>& value, std::string_view text,
                     std::string_view what) {
  if (!value) return Wrong(what, setting.type, text);
  Json json(*value);
  CADRE_TRY(CheckValue(setting, json, what));
  return json;
}

Result<Json> ParseJsonValue(const Setting& setting, std::string_view text, std::string_view what) {
  auto json = Json::Parse(text);
  const bool list = setting.type == Type::kJsonList;
  if (!json) return Wrong(what, setting.type, text, json.error().message);
  if (list ? !json->is_array() : !json->is_object()) return Wrong(what, setting.type, text);
  return *json;
}

}  // namespace

void Read(const Json& value, bool& field) {
  if (!value.is_null()) field = value.AsBool();
}
void Read(const Json& value, int& field) {
  if (!value.is_null()) field = static_cast<int>(value.AsInt());
}
void Read(const Json& value, int64_t& field) {
  if (!value.is_null()) field = value.AsInt();
}
void Read(const Json& value, double& field) {
  if (!value.is_null()) field = value.AsDouble();
}
void Read(const Json& value, std::string& field) {
  if (!value.is_null()) field = value.AsString();
}
void Read(const Json& value, std::vector<std::string>& field) {
  field.clear();
  if (value.is_null()) return;
  for (const Json& item : value.AsArray()) field.push_back(item.is_string() ? item.AsString() : item.Dump());
}
void Read(const Json& value, std::vector<int64_t>& field) {
  field.clear();
  if (value.is_null()) return;
  for (const Json& item : value.AsArray()) field.push_back(item.AsInt());
}

std::vector<std::string_view> SplitComma(std::string_view list) {
  std::vector<std::string_view> parts;
  while (!list.empty()) {
    const size_t comma = list.find(',');
    parts.push_back(list.substr(0, comma));
    if (comma == std::string_view::npos) break;
    list.remove_prefix(comma + 1);
  }
  return parts;
}

std::string Trim(std::string_view text) {
  const auto first = text.find_first_not_of(" \t\r\n");
  if (first == std::string_view::npos) return "";
  return std::string(text.substr(first, text.find_last_not_of(" \t\r\n") - first + 1));
}

std::string_view TypeText(Type type) {
  switch (type) {
    case Type::kTrue:
    case Type::kBool:
      return "true or false";
    case Type::kInt:
      return "an integer";
    case Type::kFloat:
      return "a number";
    case Type::kHumanInt:
      return "an integer such as 4096, 4k (4000) or 4K (4096)";
    case Type::kHumanIntOrAuto:
      return "an integer such as 4096, 4k (4000) or 4K (4096), or auto";
    case Type::kString:
      return "text";
    case Type::kStrings:
      return "one or more words";
    case Type::kAppended:
      return "a word; may be given again";
    case Type::kJson:
      return "a JSON object";
    case Type::kJsonOrString:
      return "a JSON object or text";
    case Type::kJsonList:
      return "a JSON list";
  }
  return "text";
}

Result<int64_t> ParseInt(std::string_view text) {
  int64_t value = 0;
  if (text.starts_with('+')) text.remove_prefix(1);
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || text.empty()) {
    return Fail(Code::kInvalidArgument, "'{}' is not an integer of 64 bits", text);
  }
  return value;
}

Result<double> ParseDouble(std::string_view text) {
  double value = 0;
  if (text.starts_with('+')) text.remove_prefix(1);
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || text.empty() || std::isnan(value)) {
    return Fail(Code::kInvalidArgument, "'{}' is not a number", text);
  }
  return value;
}

Result<int64_t> ParseHumanInt(std::string_view text) {
  constexpr std::string_view kDecimal = "kmgt", kBinary = "KMGT";
  if (text.empty()) return Fail(Code::kInvalidArgument, "'' is not an integer");
  const size_t thousands = kDecimal.find(text.back()), k1024 = kBinary.find(text.back());
  if (thousands == kDecimal.npos && k1024 == kBinary.npos) return ParseInt(text);
  const bool decimal = thousands != kDecimal.npos;
  const std::string_view digits = text.substr(0, text.size() - 1);
  // A point is only clear in thousands (25.6k = 25600); vLLM refuses it for 1024s, and so do we.
  if (!decimal && digits.find('.') != digits.npos) {
    return Fail(Code::kInvalidArgument, "decimals are not allowed with binary suffixes like {}", text.back());
  }
  if (digits.empty() || digits.find_first_not_of("0123456789.") != digits.npos) {
    return Fail(Code::kInvalidArgument, "'{}' is not an integer", text);
  }
  CADRE_ASSIGN(const double number, ParseDouble(digits));
  const double scale =
      std::pow(decimal ? 1000.0 : 1024.0, static_cast<double>(decimal ? thousands : k1024) + 1);
  if (number * scale >= 9.2e18) return Fail(Code::kInvalidArgument, "'{}' is larger than 64 bits hold", text);
  return static_cast<int64_t>(std::llround(number * scale));
}

Status CheckValue(const Setting& setting, const Json& value, std::string_view what) {
  if (value.is_number()) {
    // A plain integer is 32 bits wide unless its row says otherwise: its field may be an int.
    const bool narrow = setting.type == Type::kInt;
    const double min = narrow && std::isinf(setting.min) ? -0x1p31 : setting.min;
    const double max = narrow && std::isinf(setting.max) ? 0x1p31 - 1 : setting.max;
    const double number = value.AsDouble();
    if (number < min || number > max) {
      const auto bound = [](double b) {
        return std::abs(b) < 9e15 ? Format("{:.15g}", b) : Format("{:g}", b);
      };
      const std::string range =
          number < min ? Format("at least {}", bound(min)) : Format("at most {}", bound(max));
      return FailParam(Code::kInvalidArgument, std::string(what), "{} must be {}, not {}", what, range,
                       value.Dump());
    }
  }
  if (value.is_string() && !setting.choices.empty()) {
    for (std::string_view choice : SplitComma(setting.choices)) {
      if (choice == value.AsString()) return {};
    }
    return FailParam(Code::kInvalidArgument, std::string(what), "{}: '{}' is not one of {}", what,
                     value.AsString(), setting.choices);
  }
  return {};
}

Result<Json> ParseValue(const Setting& setting, std::string_view text, std::string_view what) {
  switch (setting.type) {
    case Type::kTrue:
    case Type::kBool:
      return Checked(setting, ParseBool(text), text, what);
    case Type::kInt:
      return Checked(setting, ParseInt(text), text, what);
    case Type::kFloat:
      return Checked(setting, ParseDouble(text), text, what);
    case Type::kHumanInt:
      return Checked(setting, ParseHumanInt(text), text, what);
    case Type::kHumanIntOrAuto:
      if (text == "auto") return Json(int64_t{-1});
      return Checked(setting, ParseHumanInt(text), text, what);
    case Type::kString: {
      const bool optional_none = setting.fallback.empty() && (text == "None" || text == "none");
      const bool none_is_a_choice = setting.choices.find("none") != setting.choices.npos;
      if (optional_none && !none_is_a_choice) return Json();
      Json json{std::string(text)};
      CADRE_TRY(CheckValue(setting, json, what));
      return json;
    }
    case Type::kStrings:
    case Type::kAppended:
      return Json(Json::Array{Json(std::string(text))});
    case Type::kJsonOrString:
      if (!Trim(text).starts_with('{')) return Json(std::string(text));
      return ParseJsonValue(setting, text, what);
    case Type::kJson:
      if (text == "None" || text == "null") return Json();
      return ParseJsonValue(setting, text, what);
    case Type::kJsonList:
      return ParseJsonValue(setting, text, what);
  }
  return Fail(Code::kInternal, "unknown type of setting {}", setting.name);
}

Result<Json> ConvertValue(const Setting& setting, const Json& value, std::string_view what) {
  if (value.is_null()) return Json();
  const bool list_type = setting.type == Type::kStrings || setting.type == Type::kAppended;
  if (list_type && value.is_array()) {
    Json::Array words;
    for (const Json& item : value.AsArray()) words.push_back(item.is_string() ? item : Json(item.Dump()));
    return Json(std::move(words));
  }
  if (setting.type == Type::kJsonList && value.is_array()) return value;
  if (value.is_object() && (setting.type == Type::kJson || setting.type == Type::kJsonOrString)) return value;
  if (value.is_array() || value.is_object()) return Wrong(what, setting.type, value.Dump());
  return ParseValue(setting, value.is_string() ? value.AsString() : value.Dump(), what);
}

Json FallbackValue(const Setting& setting) {
  if (setting.fallback.empty()) return Json();
  const bool list = setting.type == Type::kStrings || setting.type == Type::kAppended;
  auto value = list ? Json::Parse(setting.fallback) : ParseValue(setting, setting.fallback, setting.name);
  CADRE_CHECK(value.has_value());
  return *value;
}

std::string ValueText(const Json& value) {
  if (value.is_string()) return value.AsString();
  if (value.is_null()) return "none";
  if (value.is_double() && std::isinf(value.AsDouble())) return "inf";
  return value.Dump();
}

}  // namespace cadre::config
