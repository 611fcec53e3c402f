#pragma once
// Typed members of the objects in tokenizer.json; `where` names the object in messages.
#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/json.h"

namespace cadre::text {

/// A member that may be missing or null: then `otherwise`. Another type is an error.
Result<bool> BoolField(const Json& object, std::string_view key, bool otherwise, std::string_view where);
Result<int64_t> IntField(const Json& object, std::string_view key, int64_t otherwise, std::string_view where);
Result<std::string> TextField(const Json& object, std::string_view key, std::string_view otherwise,
                              std::string_view where);
/// A member that must be there.
Result<const Json*> ArrayField(const Json& object, std::string_view key, std::string_view where);
/// The "type" of a component.
Result<std::string> TypeOf(const Json& object, std::string_view where);

}  // namespace cadre::text
