#include "session/chat.h"

#include <algorithm>

namespace cadre::session {
namespace {

std::string_view Trim(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n\v\f";
  const size_t first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

Result<std::string> PartText(const Json& part, const std::string& where) {
  if (part.is_string()) return part.AsString();
  const Json* type = part.Find("type");
  if (type == nullptr || !type->is_string()) {
    return FailParam(Code::kInvalidArgument, where, "{} must be an object with a string 'type', found {}",
                     where, part.TypeName());
  }
  const std::string& name = type->AsString();
  const char* key = name == "refusal" ? "refusal" : "text";
  if (name != "text" && name != "input_text" && name != "output_text" && name != "refusal") {
    return FailParam(
        Code::kUnsupported, where,
        "{} is of type '{}'; only parts of type 'text' are served (images, audio and video are not)", where,
        Excerpt(name));
  }
  const Json* text = part.Find(key);
  if (text == nullptr || !text->is_string()) {
    return FailParam(Code::kInvalidArgument, where, "{} must have a string '{}'", where, key);
  }
  return text->AsString();
}

Json TextPart(std::string text) {
  return Json::Object{{"type", "text"}, {"text", std::move(text)}};
}

Result<Json> NormalizeContent(const Json* content, ContentFormat format, const std::string& where) {
  const bool parts = format == ContentFormat::kParts;
  if (content == nullptr || content->is_null()) return parts ? Json(Json::Array()) : Json("");
  if (content->is_string()) return parts ? Json(Json::Array{TextPart(content->AsString())}) : *content;
  if (!content->is_array()) {
    return FailParam(Code::kInvalidArgument, where, "{} must be a string or a list of parts, found {}", where,
                     content->TypeName());
  }
  Json::Array list;
  std::string joined;
  for (size_t i = 0; i < content->AsArray().size(); ++i) {
    CADRE_ASSIGN(std::string text, PartText(content->AsArray()[i], Format("{}[{}]", where, i)));
    if (parts) {
      list.push_back(TextPart(std::move(text)));
    } else {
      if (i > 0) joined += '\n';
      joined += text;
    }
  }
  return parts ? Json(std::move(list)) : Json(std::move(joined));
}

// Clients send a call's arguments as JSON in a string; templates want the object.
Status ParseToolCalls(Json& calls, const std::string& where) {
  if (calls.is_null()) return {};
  if (!calls.is_array()) {
    return FailParam(Code::kInvalidArgument, where, "{} must be a list, found {}", where, calls.TypeName());
  }
  for (size_t i = 0; i < calls.AsArray().size(); ++i) {
    Json* function = calls.AsArray()[i].Find("function");
    if (function == nullptr || !function->is_object()) {
      return FailParam(Code::kInvalidArgument, where, "{}[{}] must have an object 'function'", where, i);
    }
    Json* arguments = function->Find("arguments");
    if (arguments == nullptr || arguments->is_null()) {
      function->Set("arguments", Json::Object());
    } else if (arguments->is_string()) {
      if (Trim(arguments->AsString()).empty()) {
        *arguments = Json::Object();
        continue;
      }
      auto parsed = Json::Parse(arguments->AsString());
      if (!parsed.has_value()) {
        return FailParam(Code::kInvalidArgument, Format("{}[{}].function.arguments", where, i),
                         "{}[{}].function.arguments is not valid JSON: {}", where, i, parsed.error().message);
      }
      *arguments = std::move(*parsed);
    }
  }
  return {};
}

// Templates read what an assistant thought under one of two names; clients send either (as transformers and
// vLLM do it, both are there then).
void AliasReasoning(Json& message) {
  const std::pair<const char*, const char*> names[] = {{"reasoning", "reasoning_content"},
                                                       {"reasoning_content", "reasoning"}};
  for (const auto& [from, to] : names) {
    const Json* given = message.Find(from);
    const Json* other = message.Find(to);
    if (given == nullptr || given->is_null() || (other != nullptr && !other->is_null())) continue;
    message.Set(to, Json(*given));
  }
}

// The rendered text up to the end of the last message's content, so that the model goes on with it.
Result<std::string> CutAfterFinalMessage(std::string text, const Json& messages) {
  const Json& last = messages.AsArray().back();
  const Json* content = last.Find("content");
  std::string final_text;
  if (content != nullptr && content->is_string()) final_text = content->AsString();
  if (content != nullptr && content->is_array() && !content->AsArray().empty()) {
    final_text = content->AsArray().back().Find("text")->AsString();
  }
  const std::string_view bare = Trim(final_text);
  const size_t at = bare.empty() ? std::string::npos : text.rfind(bare);
  if (at == std::string::npos) {
    return FailParam(
        Code::kInvalidArgument, "continue_final_message",
        "continue_final_message is set, but the final message's content does not appear in the rendered "
        "chat. The template may change it, or it is empty.");
  }
  // Spaces at the end of the content stay if the template left them there.
  const std::string_view with_spaces = std::string_view(final_text).substr(final_text.find(bare));
  const bool kept = std::string_view(text).substr(at).starts_with(with_spaces);
  text.resize(at + (kept ? with_spaces : bare).size());
  return text;
}

}  // namespace

ContentFormat DetectContentFormat(std::string_view source) {
  // "{% for X in <something>content %}": a loop whose list is a message's content.
  for (size_t at = source.find("{%"); at != std::string_view::npos; at = source.find("{%", at + 2)) {
    const size_t end = source.find("%}", at);
    if (end == std::string_view::npos) break;
    std::string_view tag = Trim(source.substr(at + 2, end - at - 2));
    while (!tag.empty() && (tag.front() == '-' || tag.front() == '+')) tag.remove_prefix(1);
    while (!tag.empty() && (tag.back() == '-' || tag.back() == '+')) tag.remove_suffix(1);
    tag = Trim(tag);
    if (!tag.starts_with("for ")) continue;
    const size_t in = tag.find(" in ");
    if (in == std::string_view::npos) continue;
    std::string_view list = tag.substr(in + 4);
    list = list.substr(0, std::min(list.find(" if "), list.find('|')));
    list = Trim(list);
    if (list.ends_with(".content") || list == "content" || list.ends_with("['content']") ||
        list.ends_with("[\"content\"]")) {
      return ContentFormat::kParts;
    }
  }
  return ContentFormat::kString;
}

Result<Json> NormalizeMessages(const Json& messages, ContentFormat format) {
  if (!messages.is_array() || messages.AsArray().empty()) {
    return FailParam(Code::kInvalidArgument, "messages", "messages must be a list with at least one message");
  }
  Json::Array out;
  for (size_t i = 0; i < messages.AsArray().size(); ++i) {
    const Json& message = messages.AsArray()[i];
    const std::string where = Format("messages[{}]", i);
    if (!message.is_object()) {
      return FailParam(Code::kInvalidArgument, where, "{} must be an object, found {}", where,
                       message.TypeName());
    }
    const Json* role = message.Find("role");
    if (role == nullptr || !role->is_string() || role->AsString().empty()) {
      return FailParam(Code::kInvalidArgument, where + ".role", "{}.role must be a string such as 'user'",
                       where);
    }
    const Json* content = message.Find("content");
    // What carries its meaning elsewhere may have no content; anything else without one is a mistake of the
    // client.
    if (content == nullptr && role->AsString() != "assistant" && message.Find("tool_calls") == nullptr) {
      return FailParam(Code::kInvalidArgument, where + ".content", "{}.content is missing", where);
    }
    Json copy = message;
    CADRE_ASSIGN(Json normal, NormalizeContent(content, format, where + ".content"));
    copy.Set("content", std::move(normal));
    if (role->AsString() == "assistant") AliasReasoning(copy);
    if (Json* calls = copy.Find("tool_calls")) CADRE_TRY(ParseToolCalls(*calls, where + ".tool_calls"));
    out.push_back(std::move(copy));
  }
  return Json(std::move(out));
}

Result<std::string> RenderPrompt(const ChatPrompt& chat, const TextModel& text, ContentFormat format) {
  if (chat.continue_final_message && chat.add_generation_prompt) {
    return FailParam(Code::kInvalidArgument, "continue_final_message",
                     "Cannot set both `continue_final_message` and `add_generation_prompt` to True.");
  }
  const bool has_tools = chat.tools.is_array() && !chat.tools.AsArray().empty();
  const std::string& source =
      chat.chat_template.empty() ? text.ChatTemplateSource(has_tools) : chat.chat_template;
  if (source.empty()) {
    return FailParam(
        Code::kInvalidArgument, "messages",
        "this model has no chat template; give one with --chat-template, or use /v1/completions");
  }
  if (format == ContentFormat::kAuto) format = DetectContentFormat(source);
  CADRE_ASSIGN(Json messages, NormalizeMessages(chat.messages, format));
  Json context = Json::Object();
  if (chat.kwargs.is_object()) context = chat.kwargs;
  context.Set("messages", messages);
  context.Set("add_generation_prompt", chat.add_generation_prompt);
  context.Set("tools", has_tools ? chat.tools : Json());
  context.Set("documents", chat.documents);
  CADRE_ASSIGN(std::string rendered, text.RenderChat(context, has_tools, chat.chat_template));
  if (!chat.continue_final_message) return rendered;
  return CutAfterFinalMessage(std::move(rendered), messages);
}

}  // namespace cadre::session
