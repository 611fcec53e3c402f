#include "app/router_tokens.h"

#include "base/caught.h"
#include "base/log.h"
#include "checkpoint/hub_cache.h"
#include "session/chat.h"
#include "session/hf_text.h"

namespace cadre::app {
namespace {

using Ids = std::vector<int32_t>;

const Json* Member(const Json& body, std::string_view name) {
  const Json* value = body.Find(name);
  return value != nullptr && !value->is_null() ? value : nullptr;
}

bool Flag(const Json& body, std::string_view name, bool otherwise) {
  const Json* value = Member(body, name);
  return value != nullptr && value->is_bool() ? value->AsBool() : otherwise;
}

std::unexpected<Error> Unknown(const char* why) {
  return Fail(Code::kUnsupported, "the prompt's tokens are not known here: {}", why);
}

Result<Ids> IdsOf(const Json& list) {
  Ids ids;
  ids.reserve(list.AsArray().size());
  for (const Json& id : list.AsArray()) {
    if (!id.is_int() || id.AsInt() < 0 || id.AsInt() > INT32_MAX)
      return Unknown("it is no list of token ids");
    ids.push_back(static_cast<int32_t>(id.AsInt()));
  }
  return ids;
}

// As serve reads a chat (openai/request.cc), of members that may be anything.
Result<Ids> ChatIds(const session::TextModel& text, const Json& body) {
  const Json* messages = Member(body, "messages");
  if (messages == nullptr || !messages->is_array()) return Unknown("there are no messages");
  if (Member(body, "chat_template") != nullptr) return Unknown("it brings a chat template of its own");
  session::ChatPrompt chat;
  chat.messages = *messages;
  if (const Json* tools = Member(body, "tools"); tools != nullptr && tools->is_array()) chat.tools = *tools;
  if (const Json* documents = Member(body, "documents"); documents != nullptr && documents->is_array())
    chat.documents = *documents;
  chat.kwargs = Json::Object();
  if (const Json* effort = Member(body, "reasoning_effort"); effort != nullptr && effort->is_string())
    chat.kwargs.Set("reasoning_effort", *effort);
  if (const Json* kwargs = Member(body, "chat_template_kwargs"); kwargs != nullptr && kwargs->is_object()) {
    for (const auto& [key, value] : kwargs->AsObject()) chat.kwargs.Set(key, value);
  }
  chat.add_generation_prompt = Flag(body, "add_generation_prompt", true);
  chat.continue_final_message = Flag(body, "continue_final_message", false);
  CADRE_ASSIGN(const std::string rendered, session::RenderPrompt(chat, text, session::ContentFormat::kAuto));
  return text.Encode(rendered, Flag(body, "add_special_tokens", false));
}

Result<Ids> PromptIds(const session::TextModel& text, const Json& body) {
  for (const char* name : {"prompt_logprobs", "truncate_prompt_tokens"})
    if (Member(body, name) != nullptr) return Unknown("such requests do not use the cache as others do");
  if (Flag(body, "echo", false) && Member(body, "logprobs") != nullptr)
    return Unknown("logprobs of the prompt are not in a cache");
  for (const char* name : {"tokens", "token_ids"}) {
    if (const Json* ids = Member(body, name); ids != nullptr && ids->is_array()) return IdsOf(*ids);
  }
  const Json* prompt = Member(body, "prompt");
  if (prompt == nullptr) return ChatIds(text, body);
  if (prompt->is_array()) return IdsOf(*prompt);
  if (!prompt->is_string()) return Unknown("its prompt is no text");
  return text.Encode(prompt->AsString(), Flag(body, "add_special_tokens", true));
}

}  // namespace

Result<route::Tokenize> LoadTokenize(const config::RouterOptions& options) {
  CADRE_ASSIGN(const auto location,
               checkpoint::LocateModel(*options.tokenizer, "", {.hf_hub_cache = options.hub_cache}));
  CADRE_ASSIGN(const auto text,
               session::LoadHfText({.folder = location.folder, .chat_template = options.chat_template}));
  LogInfo("prompts are counted in tokens of {}", location.folder);
  return [text](std::string_view, const Json& body) -> Result<Ids> {
    try {
      return PromptIds(*text, body);
    } catch (...) {
      return std::unexpected(CaughtError());
    }
  };
}

}  // namespace cadre::app
