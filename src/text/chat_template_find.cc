#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>

#include "text/chat_template.h"

namespace cadre {
namespace {

namespace fs = std::filesystem;

constexpr uintmax_t kMaxFileBytes = 64u << 20;
// The tokens that transformers knows by name.
constexpr const char* kTokenNames[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                       "pad_token", "cls_token", "mask_token"};

/// The file's bytes; nothing if there is no such file.
Result<std::optional<std::string>> ReadIfThere(const fs::path& path) {
  std::error_code error;
  if (!fs::is_regular_file(path, error)) return std::nullopt;
  const uintmax_t size = fs::file_size(path, error);
  if (error) return Fail(Code::kDataLoss, "cannot read {}: {}", path.string(), error.message());
  if (size > kMaxFileBytes) {
    return Fail(Code::kDataLoss, "{} has {} bytes; at most {} are read", path.string(), size, kMaxFileBytes);
  }
  std::ifstream in(path, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  if (!in.is_open() || in.bad()) return Fail(Code::kDataLoss, "cannot read {}", path.string());
  return text;
}

/// The JSON object in the file; an empty one if there is no such file.
Result<Json> ReadObject(const fs::path& path) {
  CADRE_ASSIGN(const std::optional<std::string> text, ReadIfThere(path));
  if (!text) return Json(Json::Object());
  auto json = Json::Parse(*text, 200);
  if (!json.has_value()) return Fail(Code::kDataLoss, "{}: {}", path.string(), json.error().message);
  if (!json->is_object())
    return Fail(Code::kDataLoss, "{}: wanted an object, found {}", path.string(), json->TypeName());
  return std::move(*json);
}

/// The text of a token that is written as a string or as an AddedToken object; nothing for null.
std::optional<std::string> TokenText(const Json& token) {
  if (token.is_string()) return token.AsString();
  const Json* content = token.Find("content");
  if (content == nullptr || !content->is_string()) return std::nullopt;
  return content->AsString();
}

void TakeSpecialTokens(const Json& from, Json& tokens) {
  const auto take = [&](const std::string& name, const Json& token) {
    if (tokens.Find(name) != nullptr) return;
    if (auto text = TokenText(token)) tokens.Set(name, std::move(*text));
  };
  for (const char* name : kTokenNames) {
    if (const Json* token = from.Find(name)) take(name, *token);
  }
  // Named ones of a model: image_token and the like.
  if (const Json* extra = from.Find("extra_special_tokens"); extra != nullptr && extra->is_object()) {
    for (const auto& [name, token] : extra->AsObject()) take(name, token);
  }
  const Json* more = from.Find("additional_special_tokens");
  if (more == nullptr || !more->is_array() || tokens.Find("additional_special_tokens") != nullptr) return;
  Json::Array list;
  for (const Json& token : more->AsArray()) {
    if (auto text = TokenText(token)) list.emplace_back(std::move(*text));
  }
  tokens.Set("additional_special_tokens", std::move(list));
}

/// Takes `chat_template` of a JSON file: a string, or a list of named ones.
Status TakeTemplate(const Json& config, const fs::path& path, ChatTemplateSource& out) {
  const Json* found = config.Find("chat_template");
  if (found == nullptr || found->is_null()) return {};
  out.origin = path.string();
  if (found->is_string()) {
    out.text = found->AsString();
    return {};
  }
  const auto wrong = [&](const char* what) {
    return Fail(Code::kDataLoss,
                "{}: chat_template must be a string or a list of {{name, template}}, found {}", path.string(),
                what);
  };
  const auto add = [&](const std::string& name, const std::string& text) {
    if (name == "default") out.text = text;
    if (name == "tool_use") out.tool_use = text;
  };
  if (!found->is_array()) return wrong(found->TypeName());
  for (const Json& entry : found->AsArray()) {
    const Json* name = entry.Find("name");
    const Json* text = entry.Find("template");
    if (name == nullptr || text == nullptr || !name->is_string() || !text->is_string()) {
      return wrong("an entry without them");
    }
    add(name->AsString(), text->AsString());
  }
  return {};
}

}  // namespace

void ChatTemplateSource::AddSpecialTokens(Json& context) const {
  for (const auto& [name, token] : special_tokens.AsObject()) {
    if (context.Find(name) == nullptr) context.Set(name, token);
  }
}

Result<ChatTemplateSource> FindChatTemplate(const std::string& folder) {
  const fs::path root(folder);
  std::error_code error;
  if (!fs::is_directory(root, error)) return Fail(Code::kNotFound, "no model folder '{}'", folder);
  ChatTemplateSource out;
  const fs::path config_path = root / "tokenizer_config.json";
  CADRE_ASSIGN(const Json config, ReadObject(config_path));
  CADRE_ASSIGN(const Json token_map, ReadObject(root / "special_tokens_map.json"));
  TakeSpecialTokens(config, out.special_tokens);
  TakeSpecialTokens(token_map, out.special_tokens);

  const fs::path file = root / "chat_template.jinja";
  CADRE_ASSIGN(std::optional<std::string> text, ReadIfThere(file));
  if (text) {
    out.text = std::move(*text);
    out.origin = file.string();
    CADRE_ASSIGN(std::optional<std::string> tool_use,
                 ReadIfThere(root / "additional_chat_templates" / "tool_use.jinja"));
    if (tool_use) out.tool_use = std::move(*tool_use);
    return out;
  }
  CADRE_TRY(TakeTemplate(config, config_path, out));
  if (!out.origin.empty()) return out;
  const fs::path legacy_path = root / "chat_template.json";
  CADRE_ASSIGN(const Json legacy, ReadObject(legacy_path));
  CADRE_TRY(TakeTemplate(legacy, legacy_path, out));
  return out;
}

}  // namespace cadre
