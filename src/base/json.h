#pragma once
// JSON values as Cadre passes them around: ordered objects, exact 64-bit integers, no exceptions.
// Parsing is bounded in depth and rejects bad UTF-8, so hostile text costs time linear in its length.
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/error.h"

namespace cadre {

class Json {
 public:
  using Array = std::vector<Json>;
  using Member = std::pair<std::string, Json>;
  using Object = std::vector<Member>;  ///< in the order written; a repeated key keeps its first place and last value

  Json() = default;
  Json(std::nullptr_t) {}
  Json(bool b) : value_(b) {}
  Json(int i) : value_(int64_t{i}) {}
  Json(int64_t i) : value_(i) {}
  Json(uint64_t u) : value_(static_cast<int64_t>(u)) {}
  Json(double d) : value_(d) {}
  Json(const char* s) : value_(std::string(s)) {}
  Json(std::string_view s) : value_(std::string(s)) {}
  Json(std::string s) : value_(std::move(s)) {}
  Json(Array a) : value_(std::move(a)) {}
  Json(Object o) : value_(std::move(o)) {}

  bool is_null() const { return std::holds_alternative<std::monostate>(value_); }
  bool is_bool() const { return std::holds_alternative<bool>(value_); }
  bool is_int() const { return std::holds_alternative<int64_t>(value_); }
  bool is_double() const { return std::holds_alternative<double>(value_); }
  bool is_number() const { return is_int() || is_double(); }
  bool is_string() const { return std::holds_alternative<std::string>(value_); }
  bool is_array() const { return std::holds_alternative<Array>(value_); }
  bool is_object() const { return std::holds_alternative<Object>(value_); }
  /// "null", "boolean", "integer", "number", "string", "array" or "object", for messages.
  const char* TypeName() const;

  // Access; the type must have been asked before (checked).
  bool AsBool() const;
  int64_t AsInt() const;
  double AsDouble() const;  ///< also for integers
  const std::string& AsString() const;
  const Array& AsArray() const;
  Array& AsArray();
  const Object& AsObject() const;
  Object& AsObject();

  /// Member of an object; nullptr if this is no object or has no such key. Cost: linear in the members.
  const Json* Find(std::string_view key) const;
  Json* Find(std::string_view key);
  /// Sets or adds a member of an object (a null value becomes an object first).
  void Set(std::string key, Json value);
  void Push(Json value);  ///< appends to an array (a null value becomes an array first)

  /// Compact text, UTF-8 as it is, integers without a point, doubles as the shortest text that reads back equal
  /// (NaN and infinities, which JSON lacks, become null).
  std::string Dump() const;
  void DumpTo(std::string& out) const;
  /// The same over several lines, two spaces a level.
  std::string DumpPretty() const;

  /// Parses one JSON document. At most `max_depth` nested arrays and objects.
  /// Integers outside 64 bits become doubles. Errors: kInvalidArgument with the byte offset.
  static Result<Json> Parse(std::string_view text, int max_depth = 64);

  friend bool operator==(const Json&, const Json&) = default;

 private:
  std::variant<std::monostate, bool, int64_t, double, std::string, Array, Object> value_;
};

/// Appends `text` as a JSON string literal, quotes included.
void AppendJsonString(std::string& out, std::string_view text);
/// Appends a number as Json::Dump writes it.
void AppendJsonNumber(std::string& out, double number);

}  // namespace cadre
