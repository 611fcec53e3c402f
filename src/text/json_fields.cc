#include "text/json_fields.h"

namespace cadre::text {
namespace {

std::unexpected<Error> WrongType(const Json& found, std::string_view key, const char* wanted,
                                 std::string_view where) {
  return Fail(Code::kInvalidArgument, "{}: \"{}\" must be {}, not {}", where, key, wanted, found.TypeName());
}

const Json* Present(const Json& object, std::string_view key) {
  const Json* found = object.Find(key);
  return found == nullptr || found->is_null() ? nullptr : found;
}

}  // namespace

Result<bool> BoolField(const Json& object, std::string_view key, bool otherwise, std::string_view where) {
  const Json* found = Present(object, key);
  if (found == nullptr) return otherwise;
  if (!found->is_bool()) return WrongType(*found, key, "a boolean", where);
  return found->AsBool();
}

Result<int64_t> IntField(const Json& object, std::string_view key, int64_t otherwise,
                         std::string_view where) {
  const Json* found = Present(object, key);
  if (found == nullptr) return otherwise;
  if (!found->is_int()) return WrongType(*found, key, "an integer", where);
  return found->AsInt();
}

Result<std::string> TextField(const Json& object, std::string_view key, std::string_view otherwise,
                              std::string_view where) {
  const Json* found = Present(object, key);
  if (found == nullptr) return std::string(otherwise);
  if (!found->is_string()) return WrongType(*found, key, "a string", where);
  return found->AsString();
}

Result<const Json*> ArrayField(const Json& object, std::string_view key, std::string_view where) {
  const Json* found = object.Find(key);
  if (found == nullptr) return Fail(Code::kInvalidArgument, "{}: \"{}\" is missing", where, key);
  if (!found->is_array()) return WrongType(*found, key, "an array", where);
  return found;
}

Result<std::string> TypeOf(const Json& object, std::string_view where) {
  if (!object.is_object())
    return Fail(Code::kInvalidArgument, "{}: expected an object, found {}", where, object.TypeName());
  const Json* type = object.Find("type");
  if (type == nullptr || !type->is_string())
    return Fail(Code::kInvalidArgument, "{}: \"type\" is missing", where);
  return type->AsString();
}

}  // namespace cadre::text
