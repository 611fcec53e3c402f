#pragma once
// The bodies of the OpenAI API as tables: one line a field, with its type and what Cadre makes of it.
// Everything that vLLM's request classes know is there, so that nothing is ignored in silence; what they do
// not know is let pass, as they do.
#include <functional>
#include <mutex>
#include <set>
#include <span>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/json.h"

namespace cadre::serve {

enum class FieldType {
  kBool,
  kInt,
  kNumber,
  kString,
  kStringOrList,  ///< a string, or a list of strings
  kStrings,
  kInts,
  kObjects,
  kObject,
  kAny,  ///< looked at by its user
};

enum class FieldUse {
  kWorks,
  kNoEffect,  ///< accepted; `note` says why it does nothing here
  kRefused,   ///< 400 unless it has its `neutral` value; `note` says what is missing
};

struct Field {
  std::string_view name;
  FieldType type = FieldType::kAny;
  FieldUse use = FieldUse::kWorks;
  std::string_view note = {};
  std::string_view neutral = "null";  ///< as JSON: of a refused field, the value that asks for nothing
  double min = -1e300, max = 1e300;   ///< of numbers; ranges that depend on the model are the session's
};

std::span<const Field> ChatFields();
std::span<const Field> ChatTokensFields();  ///< with "tokens"
std::span<const Field> CompletionFields();
std::span<const Field> GenerateFields();
std::span<const Field> TokenizeFields();
std::span<const Field> DetokenizeFields();

/// Says once of each field what it does not do here. Any thread; a request without such fields costs nothing.
class FieldNotes {
 public:
  using Say = std::function<void(const std::string& line)>;
  explicit FieldNotes(Say say);
  void NoEffect(const Field& field);
  /// What neither vLLM nor Cadre knows; clients choose the names, so only the first few dozen are said.
  void Unknown(std::string_view name);

 private:
  const Say say_;
  std::mutex mutex_;
  std::set<std::string, std::less<>> said_;  // guarded by mutex_
};

/// Parses a body and checks it against a table: JSON, an object, the types, ranges and refused fields; a null
/// counts as absent. Errors: kInvalidArgument or kUnsupported with the field. Cost: linear in the body.
/// `notes` hears of fields that do nothing.
Result<Json> ParseBody(std::string_view body, std::span<const Field> fields, FieldNotes& notes);

// Members of a checked body; absent or null gives the default.
bool GetBool(const Json& body, std::string_view name, bool otherwise);
int64_t GetInt(const Json& body, std::string_view name, int64_t otherwise);
std::string GetString(const Json& body, std::string_view name);
/// The member if it is there and not null.
const Json* GetField(const Json& body, std::string_view name);

}  // namespace cadre::serve
