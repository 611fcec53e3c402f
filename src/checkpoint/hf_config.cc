#include "checkpoint/hf_config.h"

#include <algorithm>
#include <cmath>

#include "checkpoint/file.h"

namespace cadre::checkpoint {
namespace {

constexpr int64_t kMaxConfigBytes = 16 << 20;

Result<Json> ReadObject(const std::string& path) {
  CADRE_ASSIGN(const std::string text, ReadWholeFile(path, kMaxConfigBytes));
  auto json = Json::Parse(text);
  if (!json) return cadre::Fail(Code::kDataLoss, "{}: {}", path, json.error().message);
  if (!json->is_object()) {
    return cadre::Fail(Code::kDataLoss, "{}: wanted a JSON object, found {}", path, json->TypeName());
  }
  return json;
}

std::string Shortened(const Json& value) {
  std::string text = value.Dump();
  if (text.size() > 120) text = text.substr(0, 117) + "...";
  return text;
}

}  // namespace

Result<ModelFiles> ReadModelFiles(const std::string& folder) {
  ModelFiles files{.folder = folder, .config = {}, .generation_config = {}};
  if (!IsFile(folder + "/config.json")) {
    return cadre::Fail(Code::kNotFound,
                       "no config.json in {}: a model folder holds config.json and safetensors files",
                       folder);
  }
  CADRE_ASSIGN(files.config, ReadObject(folder + "/config.json"));
  if (IsFile(folder + "/generation_config.json")) {
    CADRE_ASSIGN(files.generation_config, ReadObject(folder + "/generation_config.json"));
  }
  return files;
}

const Json* ConfigReader::Find(std::string_view key) const {
  const Json* value = object_->Find(key);
  return value && !value->is_null() ? value : nullptr;
}

std::string_view ConfigReader::AnyOf(std::initializer_list<std::string_view> keys) const {
  for (const std::string_view key : keys) {
    if (Has(key)) return key;
  }
  return *keys.begin();
}

void ConfigReader::Fail(Error error) {
  if (status_) status_ = std::unexpected(std::move(error));
}

void ConfigReader::WrongType(std::string_view key, const char* wanted, const Json& found) {
  Fail({Code::kInvalidArgument, Format("{}: {} must be {}, found {}", where_, key, wanted, Shortened(found)),
        std::string(key)});
}

void ConfigReader::Refuse(std::string_view key, std::string_view supported) {
  const Json* value = Find(key);
  Fail({Code::kUnsupported,
        Format("{}: {} {} is not supported; supported: {}", where_, key,
               value ? Shortened(*value) : "(absent)", supported),
        std::string(key)});
}

std::optional<int64_t> ConfigReader::CheckInt(std::string_view key, const Json& value, int64_t min,
                                              int64_t max) {
  int64_t number = 0;
  if (value.is_int()) {
    number = value.AsInt();
  } else if (value.is_double() && std::abs(value.AsDouble()) < 9e15 &&
             std::floor(value.AsDouble()) == value.AsDouble()) {
    number = static_cast<int64_t>(value.AsDouble());
  } else {
    WrongType(key, "an integer", value);
    return std::nullopt;
  }
  if (number < min || number > max) {
    WrongType(key, Format("from {} to {}", min, max).c_str(), value);
    return std::nullopt;
  }
  return number;
}

int64_t ConfigReader::Int(std::string_view key, int64_t min, int64_t max) {
  if (const Json* value = Find(key)) return CheckInt(key, *value, min, max).value_or(min);
  Fail({Code::kInvalidArgument, Format("{}: {} is missing (an integer)", where_, key), std::string(key)});
  return min;
}

int64_t ConfigReader::IntOr(std::string_view key, int64_t fallback, int64_t min, int64_t max) {
  return Has(key) ? Int(key, min, max) : fallback;
}

double ConfigReader::Number(std::string_view key, double min, double max) {
  const Json* value = Find(key);
  if (!value) {
    Fail({Code::kInvalidArgument, Format("{}: {} is missing (a number)", where_, key), std::string(key)});
  } else if (!value->is_number()) {
    WrongType(key, "a number", *value);
  } else if (const double number = value->AsDouble(); number >= min && number <= max) {  // false for NaN
    return number;
  } else {
    WrongType(key, Format("from {} to {}", min, max).c_str(), *value);
  }
  return min;
}

double ConfigReader::NumberOr(std::string_view key, double fallback, double min, double max) {
  return Has(key) ? Number(key, min, max) : fallback;
}

bool ConfigReader::BoolOr(std::string_view key, bool fallback) {
  const Json* value = Find(key);
  if (!value) return fallback;
  if (value->is_bool()) return value->AsBool();
  WrongType(key, "true or false", *value);
  return fallback;
}

std::string ConfigReader::StringOr(std::string_view key, std::string fallback) {
  const Json* value = Find(key);
  if (!value) return fallback;
  if (value->is_string()) return value->AsString();
  WrongType(key, "text", *value);
  return fallback;
}

std::vector<int64_t> ConfigReader::Ints(std::string_view key, int64_t min, int64_t max) {
  const Json* value = Find(key);
  std::vector<int64_t> numbers;
  if (!value) return numbers;
  if (!value->is_array()) {
    if (const auto number = CheckInt(key, *value, min, max)) numbers.push_back(*number);
    return numbers;
  }
  for (const Json& item : value->AsArray()) {
    const auto number = CheckInt(key, item, min, max);
    if (!number) break;
    numbers.push_back(*number);
  }
  return numbers;
}

std::optional<std::vector<std::string>> ConfigReader::Strings(std::string_view key) {
  const Json* value = Find(key);
  if (!value) return std::nullopt;
  std::vector<std::string> list;
  if (!value->is_array() || !std::all_of(value->AsArray().begin(), value->AsArray().end(),
                                         [](const Json& item) { return item.is_string(); })) {
    WrongType(key, "a list of text", *value);
    return list;
  }
  for (const Json& item : value->AsArray()) list.push_back(item.AsString());
  return list;
}

}  // namespace cadre::checkpoint
