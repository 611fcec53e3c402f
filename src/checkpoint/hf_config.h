#pragma once
// config.json and generation_config.json, and a reader that turns wrong values into messages.
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/json.h"

namespace cadre::checkpoint {

struct ModelFiles {
  std::string folder;
  Json config;             ///< config.json, an object
  Json generation_config;  ///< generation_config.json, or null where there is none
};

/// Reads the two files of a model folder. Errors: kNotFound (no config.json), kDataLoss (not a JSON object).
Result<ModelFiles> ReadModelFiles(const std::string& folder);

/// Reads typed values from a JSON object and keeps the first error, so that a long list of keys needs one
/// check at the end. After an error every call returns a value inside the asked range. null counts as absent.
class ConfigReader {
 public:
  /// `where` names the object in messages ("config.json"). `object` must outlive the reader.
  ConfigReader(const Json& object, std::string where) : object_(&object), where_(std::move(where)) {}

  /// Integer in [min, max]; whole floats (16.0) count. The first form demands the key.
  int64_t Int(std::string_view key, int64_t min, int64_t max);
  int64_t IntOr(std::string_view key, int64_t fallback, int64_t min, int64_t max);
  /// Finite number in [min, max].
  double Number(std::string_view key, double min, double max);
  double NumberOr(std::string_view key, double fallback, double min, double max);
  bool BoolOr(std::string_view key, bool fallback);
  std::string StringOr(std::string_view key, std::string fallback);
  /// List of integers, or one integer as a list of one; empty if absent.
  std::vector<int64_t> Ints(std::string_view key, int64_t min, int64_t max);
  /// List of text; nothing if absent.
  std::optional<std::vector<std::string>> Strings(std::string_view key);

  /// The value, or nullptr if the key is absent or null.
  const Json* Find(std::string_view key) const;
  bool Has(std::string_view key) const { return Find(key) != nullptr; }
  /// The key is not written at all (null counts as written).
  bool IsAbsent(std::string_view key) const { return object_->Find(key) == nullptr; }
  /// The first of the keys that is there (else the first one): for settings with several spellings.
  std::string_view AnyOf(std::initializer_list<std::string_view> keys) const;

  /// Notes that `key` asks for something that is not built: "config.json: hidden_act \"gelu\" is not
  /// supported; ...".
  void Refuse(std::string_view key, std::string_view supported);
  void Fail(Error error);
  bool failed() const { return !status_.has_value(); }
  const Status& status() const { return status_; }
  const std::string& where() const { return where_; }

 private:
  void WrongType(std::string_view key, const char* wanted, const Json& found);
  std::optional<int64_t> CheckInt(std::string_view key, const Json& value, int64_t min, int64_t max);

  const Json* object_;
  std::string where_;
  Status status_;
};

}  // namespace cadre::checkpoint
