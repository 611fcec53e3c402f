#include "text/tokenizer_config.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>

#include "base/format.h"
#include "base/json.h"
#include "text/json_fields.h"

namespace cadre::text {
namespace {

// A token with a role is written as its content, or as an object with flags.
void ReadRole(const Json& json, std::string_view key, std::string& role) {
  const Json* found = json.Find(key);
  if (found != nullptr && found->is_object()) found = found->Find("content");
  if (role.empty() && found != nullptr && found->is_string()) role = found->AsString();
}

void ReadRoles(const Json& json, TokenizerConfig& config) {
  ReadRole(json, "bos_token", config.bos);
  ReadRole(json, "eos_token", config.eos);
  ReadRole(json, "pad_token", config.pad);
  ReadRole(json, "unk_token", config.unk);
}

Result<Json> ReadJsonFile(const std::string& path) {
  CADRE_ASSIGN(const auto text, ReadWholeFile(path));
  if (!text) return Json(Json::Object());
  auto json = Json::Parse(*text);
  if (!json) return Fail(Code::kInvalidArgument, "{}: {}", path, json.error().message);
  if (!json->is_object())
    return Fail(Code::kInvalidArgument, "{}: expected an object, found {}", path, json->TypeName());
  return json;
}

Status ReadAdded(const Json& json, const std::string& path, TokenizerConfig& config) {
  const Json* added = json.Find("added_tokens_decoder");
  if (added == nullptr || !added->is_object()) return {};
  for (const auto& [key, value] : added->AsObject()) {
    CADRE_ASSIGN(AddedToken token,
                 ReadAddedToken(value, fmt::format("{}: added_tokens_decoder.{}", path, key)));
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), token.id);
    if (error != std::errc() || end != key.data() + key.size()) {
      return Fail(Code::kInvalidArgument, "{}: added_tokens_decoder has the key \"{}\"; expected token ids",
                  path, key);
    }
    config.added.push_back(std::move(token));
  }
  std::sort(config.added.begin(), config.added.end(),
            [](const AddedToken& a, const AddedToken& b) { return a.id < b.id; });
  return {};
}

}  // namespace

Result<std::optional<std::string>> ReadWholeFile(const std::string& path) {
  constexpr uintmax_t kMaxBytes = uintmax_t{1} << 30;
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return std::optional<std::string>();
  const uintmax_t size = std::filesystem::file_size(path, error);
  if (error) return Fail(Code::kInvalidArgument, "{}: {}", path, error.message());
  if (size > kMaxBytes)
    return Fail(Code::kInvalidArgument, "{}: {} bytes; the most is {}", path, size, kMaxBytes);
  std::ifstream file(path, std::ios::binary);
  std::string text(static_cast<size_t>(size), '\0');
  file.read(text.data(), static_cast<std::streamsize>(size));
  if (!file) return Fail(Code::kDataLoss, "{}: could not be read to its end", path);
  return std::optional<std::string>(std::move(text));
}

Result<TokenizerConfig> ReadTokenizerConfig(const std::string& folder) {
  TokenizerConfig config;
  const std::string path = folder + "/tokenizer_config.json";
  CADRE_ASSIGN(const Json json, ReadJsonFile(path));
  ReadRoles(json, config);
  for (const auto& [key, target] :
       {std::pair{"add_bos_token", &config.add_bos}, {"add_eos_token", &config.add_eos}}) {
    const Json* found = json.Find(key);
    if (found != nullptr && found->is_bool()) *target = found->AsBool();
  }
  CADRE_ASSIGN(config.tokenizer_class, TextField(json, "tokenizer_class", "", path));
  CADRE_TRY(ReadAdded(json, path, config));
  CADRE_ASSIGN(const Json map, ReadJsonFile(folder + "/special_tokens_map.json"));
  ReadRoles(map, config);
  return config;
}

}  // namespace cadre::text
