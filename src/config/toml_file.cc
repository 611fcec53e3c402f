#include "config/toml_file.h"

#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <sstream>

#define TOML_EXCEPTIONS 0
#define TOML_HEADER_ONLY 1
#include <toml++/toml.h>

namespace cadre::config {
namespace {

constexpr size_t kMaxBytes = 1 << 20;

std::string Below(const std::string& path, std::string_view key) {
  return path.empty() ? std::string(key) : Format("{}.{}", path, key);
}

// The parser bounds the depth (256).
Json Convert(const toml::node& node, const std::string& path, std::map<std::string, int>& lines) {
  if (!path.empty()) lines[path] = static_cast<int>(node.source().begin.line);
  if (const auto* table = node.as_table()) {
    Json::Object members;
    for (const auto& [key, value] : *table)
      members.emplace_back(std::string(key.str()), Convert(value, Below(path, key.str()), lines));
    return Json(std::move(members));
  }
  if (const auto* array = node.as_array()) {
    Json::Array items;
    for (const toml::node& item : *array)
      items.push_back(Convert(item, Below(path, Format("{}", items.size())), lines));
    return Json(std::move(items));
  }
  if (const auto* text = node.as_string()) return text->get() == "None" ? Json() : Json(text->get());
  if (const auto* number = node.as_integer()) return Json(int64_t{number->get()});
  if (const auto* number = node.as_floating_point()) return Json(number->get());
  if (const auto* truth = node.as_boolean()) return Json(truth->get());
  std::ostringstream date;
  if (const auto* value = node.as_date()) date << value->get();
  if (const auto* value = node.as_time()) date << value->get();
  if (const auto* value = node.as_date_time()) date << value->get();
  return Json(date.str());
}

toml::table TableOf(const Json& object);

toml::array ArrayOf(const Json& list) {
  toml::array array;
  for (const Json& item : list.AsArray()) {
    if (item.is_object()) array.push_back(TableOf(item));
    if (item.is_array()) array.push_back(ArrayOf(item));
    if (item.is_string()) array.push_back(item.AsString());
    if (item.is_bool()) array.push_back(item.AsBool());
    if (item.is_int()) array.push_back(item.AsInt());
    if (item.is_double()) array.push_back(item.AsDouble());
  }
  return array;
}

toml::table TableOf(const Json& object) {
  toml::table table;
  for (const auto& [key, value] : object.AsObject()) {
    if (value.is_object()) table.insert_or_assign(key, TableOf(value));
    if (value.is_array()) table.insert_or_assign(key, ArrayOf(value));
    if (value.is_string()) table.insert_or_assign(key, value.AsString());
    if (value.is_bool()) table.insert_or_assign(key, value.AsBool());
    if (value.is_int()) table.insert_or_assign(key, value.AsInt());
    if (value.is_double()) table.insert_or_assign(key, value.AsDouble());
  }
  return table;
}

// "line" is 0 where the text as a whole is wrong.
struct Fault {
  int line = 0;
  std::string why;
};

std::expected<TomlDocument, Fault> Parse(std::string_view text) {
  if (text.size() > kMaxBytes) return std::unexpected(Fault{0, Format("longer than {} bytes", kMaxBytes)});
  const toml::parse_result parsed = toml::parse(text);
  if (!parsed) {
    return std::unexpected(Fault{static_cast<int>(parsed.error().source().begin.line),
                                 std::string(parsed.error().description())});
  }
  TomlDocument document;
  document.values = Convert(parsed.table(), "", document.lines);
  return document;
}

}  // namespace

Result<TomlDocument> ParseToml(std::string_view text) {
  auto parsed = Parse(text);
  if (parsed) return *std::move(parsed);
  const Fault& fault = parsed.error();
  return Fail(Code::kInvalidArgument, "line {}: {}", fault.line, fault.why);
}

Result<TomlDocument> LoadToml(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text(kMaxBytes + 1, '\0');
  if (file) file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (!file.is_open() || file.bad() || (!file && file.gcount() == 0 && !file.eof()))
    return FailParam(Code::kNotFound, path, "cannot read '{}': {}", path, std::strerror(errno));
  text.resize(static_cast<size_t>(file.gcount()));
  auto parsed = Parse(text);
  if (parsed) return *std::move(parsed);
  const Fault& fault = parsed.error();
  return FailParam(Code::kInvalidArgument, path, "{}:{}: {}", path, fault.line, fault.why);
}

std::string TomlText(const Json& table) {
  std::ostringstream text;
  text << TableOf(table) << "\n";
  return text.str();
}

}  // namespace cadre::config
