#include "config/toml_file.h"

#include <cctype>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <sstream>

// toml++ 3.3 takes some malformed texts ("[=") for impossible: it asserts, and without assertions the
// compiler may do as it likes. So its assertions stay, as exceptions, which do not leave this file.
namespace {
struct TomlAssertion {};
[[noreturn]] void FailTomlAssertion() {
  throw TomlAssertion();
}
}  // namespace
#pragma push_macro("NDEBUG")
#undef NDEBUG
#define TOML_ASSERT(condition)             \
  do {                                     \
    if (!(condition)) FailTomlAssertion(); \
  } while (false)
#define TOML_EXCEPTIONS 1
#define TOML_HEADER_ONLY 1
#include <toml++/toml.h>
#pragma pop_macro("NDEBUG")

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

// The first line that begins with a bracket and goes on with what begins no name.
int LineOfBadHeader(std::string_view text) {
  int line = 0;
  while (!text.empty()) {
    ++line;
    std::string_view one = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(one.size() + 1, text.size()));
    const size_t bracket = one.find_first_not_of(" \t");
    if (bracket == one.npos || one[bracket] != '[') continue;
    const size_t name = one.find_first_not_of("[ \t", bracket);
    if (name == one.npos || (!std::isalnum(static_cast<unsigned char>(one[name])) &&
                             std::string_view("_-\"']").find(one[name]) == std::string_view::npos))
      return line;
  }
  return line;
}

std::expected<TomlDocument, Fault> Parse(std::string_view text) {
  if (text.size() > kMaxBytes) return std::unexpected(Fault{0, Format("longer than {} bytes", kMaxBytes)});
  try {
    const toml::table parsed = toml::parse(text);
    TomlDocument document;
    document.values = Convert(parsed, "", document.lines);
    return document;
  } catch (const toml::parse_error& error) {
    return std::unexpected(
        Fault{static_cast<int>(error.source().begin.line), std::string(error.description())});
  } catch (const TomlAssertion&) {
    return std::unexpected(Fault{LineOfBadHeader(text), "a table's name is missing behind its bracket"});
  }
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
