// POST /v1/chat/completions
#include "serve/openai/kv_transfer.h"
#include "serve/openai/request.h"
#include "serve/openai/schema.h"

namespace cadre::serve {
namespace {

class ChatAnswer final : public Answer {
 public:
  ChatAnswer(Api& api, AnswerOptions options, WriterPtr writer, std::string echoed, bool return_prompt_text)
      : Answer(api, std::move(options), std::move(writer)),
        echoed_(std::move(echoed)),
        return_prompt_text_(return_prompt_text) {}

 protected:
  void AppendChunk(std::string& out, size_t index, Choice& choice, const session::Delta& delta,
                   bool first) override {
    if (first) AppendRoleChunk(out, index);
    const bool shows_tokens = options_.logprobs.has_value() || options_.return_token_ids;
    if (delta.text.empty() && delta.end == nullptr && !shows_tokens) return;
    out += frame();
    out += "{\"index\":";
    AppendInt(out, static_cast<int64_t>(index));
    out += ",\"delta\":{\"content\":";
    AppendJsonString(out, delta.text);
    out += "},\"logprobs\":";
    if (options_.logprobs && !delta.tokens.empty()) {
      out += "{\"content\":[";
      AppendContent(out, delta.tokens);
      out += "]}";
    } else {
      out += "null";
    }
    AppendFinish(out, delta.end);
    if (options_.return_token_ids) AppendIds(out, delta.tokens);
    out += "}]";
    AppendChunkUsage(out, index, choice);
    out += "}\n\n";
  }

  void Keep(Choice& choice, size_t, const session::Delta& delta, bool) override {
    if (!options_.logprobs || delta.tokens.empty()) return;
    if (!choice.logprobs.empty()) choice.logprobs += ',';
    AppendContent(choice.logprobs, delta.tokens);
  }

  void AppendChoice(std::string& out, size_t, const Choice& choice) override {
    out += ",\"message\":{\"role\":";
    AppendJsonString(out, api_.options.response_role);
    out += ",\"content\":";
    AppendJsonString(out, echoed_.empty() ? choice.text : echoed_ + choice.text);
    out +=
        ",\"refusal\":null,\"annotations\":null,\"audio\":null,\"function_call\":null,\"tool_calls\":[],"
        "\"reasoning\":null}";
    out += ",\"logprobs\":";
    out += options_.logprobs ? "{\"content\":[" + choice.logprobs + "]}" : "null";
    out += ",\"finish_reason\":\"";
    out += choice.finish_reason;
    out += "\",\"stop_reason\":";
    AppendStopReason(out, choice.stop_reason);
    out += ",\"token_ids\":";
    if (options_.return_token_ids) {
      AppendInts(out, choice.token_ids);
    } else {
      out += "null";
    }
    if (choice.routed.top_k == 0) return;
    out += ",\"routed_experts\":";
    AppendRoutedNpy(out, choice.routed);
  }

  void AppendExtras(std::string& out) override {
    out += ",\"prompt_logprobs\":";
    if (options_.prompt_logprobs) {
      AppendPromptLogprobs(out, choices_[0]);
    } else {
      out += "null";
    }
    out += ",\"prompt_token_ids\":";
    if (options_.return_token_ids) {
      AppendInts(out, PromptOf(0));
    } else {
      out += "null";
    }
    if (return_prompt_text_) {
      out += ",\"prompt_text\":";
      AppendJsonString(out, PromptTextOf(0));
    }
  }

 private:
  void AppendRoleChunk(std::string& out, size_t index) {
    out += frame();
    out += "{\"index\":";
    AppendInt(out, static_cast<int64_t>(index));
    out += ",\"delta\":{\"role\":";
    AppendJsonString(out, api_.options.response_role);
    out += ",\"content\":";
    AppendJsonString(out, echoed_);
    out += "},\"logprobs\":null,\"finish_reason\":null}]";
    if (options_.return_token_ids && index == 0) {
      out += ",\"prompt_token_ids\":";
      AppendInts(out, PromptOf(0));
    }
    if (return_prompt_text_ && index == 0) {
      out += ",\"prompt_text\":";
      AppendJsonString(out, PromptTextOf(0));
    }
    AppendChunkUsage(out, index, Choice());  // no token yet
    out += "}\n\n";
  }

  static void AppendIds(std::string& out, std::span<const engine::GeneratedToken> tokens) {
    out += ",\"token_ids\":[";
    for (size_t i = 0; i < tokens.size(); ++i) {
      if (i > 0) out += ',';
      AppendInt(out, tokens[i].token);
    }
    out += ']';
  }

  // {"token","logprob","bytes" without the closing brace.
  void AppendEntry(std::string& out, const engine::TokenLogprob& entry) const {
    const std::string text = TokenText(entry.token);
    out += "{\"token\":";
    AppendJsonString(out, text);
    out += ",\"logprob\":";
    AppendLogprob(out, entry.logprob);
    out += ",\"bytes\":[";
    // The token's own bytes, which for a part of a character are not those of its text.
    const bool as_id = options_.tokens_as_ids || api_.session.text() == nullptr;
    const std::string bytes = as_id ? text : api_.session.text()->TokenBytes(entry.token);
    for (size_t i = 0; i < bytes.size(); ++i) {
      if (i > 0) out += ',';
      AppendInt(out, static_cast<unsigned char>(bytes[i]));
    }
    out += ']';
  }

  void AppendContent(std::string& out, std::span<const engine::GeneratedToken> tokens) const {
    AppendLogprobContent(out, tokens, *options_.logprobs,
                         [this](std::string& to, const auto& entry) { AppendEntry(to, entry); });
  }

  const std::string echoed_;
  const bool return_prompt_text_;
};

// Tools are rendered and the raw text comes back; a forced call would need a grammar.
Status CheckToolChoice(const Api& api, const Json& body, session::ChatPrompt& chat) {
  const Json* choice = GetField(body, "tool_choice");
  if (choice == nullptr) return {};
  if (choice->is_object() || (choice->is_string() && choice->AsString() == "required")) {
    return FailParam(
        Code::kUnsupported, "tool_choice",
        "'tool_choice' {} needs a grammar or a parser for the answer, which is not built yet; use 'auto' or "
        "'none'",
        choice->is_object() ? "with a named function" : "'required'");
  }
  if (!choice->is_string() || (choice->AsString() != "none" && choice->AsString() != "auto")) {
    return FailParam(
        Code::kInvalidArgument, "tool_choice",
        "tool_choice must be 'none', 'auto', 'required' or an object naming a function, found {}",
        Excerpt(choice->Dump()));
  }
  if (choice->AsString() == "auto" && chat.tools.is_null()) {
    return FailParam(Code::kInvalidArgument, "tool_choice", "When using `tool_choice`, `tools` must be set.");
  }
  if (choice->AsString() == "none" && api.options.exclude_tools_when_tool_choice_none) chat.tools = Json();
  return {};
}

// With echo the last message's content comes first, if it is the role that answers.
std::string EchoedContent(const Api& api, const Json& messages) {
  if (!messages.is_array() || messages.AsArray().empty()) return {};
  const Json& last = messages.AsArray().back();
  const Json* role = last.Find("role");
  const Json* content = last.Find("content");
  if (role == nullptr || content == nullptr || !content->is_string() ||
      *role != Json(api.options.response_role))
    return {};
  return content->AsString();
}

Status FillLogprobs(const Json& body, session::SamplingRequest& sampling, AnswerOptions& answer) {
  const bool wanted = GetBool(body, "logprobs", false);
  const int64_t top = GetInt(body, "top_logprobs", 0);
  if (!wanted) {
    if (top == 0) return {};
    return FailParam(Code::kInvalidArgument, "top_logprobs",
                     "when using `top_logprobs`, `logprobs` must be set to true.");
  }
  sampling.logprobs = top;
  sampling.logprobs_name = "top_logprobs";
  answer.logprobs = static_cast<int>(std::clamp<int64_t>(top, -1, INT32_MAX));
  return {};
}

}  // namespace

namespace {

// `tokens`: the prompt's ids where the route has them, null where the messages are the prompt.
Status AnswerChat(Api& api, const Json& body, const Json* tokens, const http::Request& http,
                  const WriterPtr& writer) {
  CADRE_ASSIGN(const std::string adapter, AdapterOf(api, body));
  session::GenerateRequest request;
  CADRE_TRY(FillRequest(api, body, http, request));
  request.fill_context = true;
  request.prompt_field = "messages";
  request.add_special_tokens = GetBool(body, "add_special_tokens", false);
  if (GetField(body, "max_completion_tokens") != nullptr) {
    request.sampling.max_tokens = GetInt(body, "max_completion_tokens", 0);
    request.sampling.max_tokens_name = "max_completion_tokens";
  }
  CADRE_ASSIGN(session::ChatPrompt chat, ChatOf(api, body));
  CADRE_TRY(CheckToolChoice(api, body, chat));
  AnswerOptions options;
  options.object = "chat.completion";
  options.chunk_object = "chat.completion.chunk";
  CADRE_TRY(FillAnswer(api, body, http, "chatcmpl-", options));
  CADRE_TRY(FillLogprobs(body, request.sampling, options));
  std::string echoed = request.echo ? EchoedContent(api, chat.messages) : std::string();
  request.echo = false;  // of the prompt: that is text completions' meaning
  request.id = options.id;
  request.adapter = adapter;
  if (!adapter.empty()) options.model = adapter;
  if (tokens != nullptr) {  // the messages are there for parsers alone
    session::TokenPrompt prompt;
    for (const Json& token : tokens->AsArray()) prompt.ids.push_back(token.AsInt());
    request.prompts.emplace_back(std::move(prompt));
    request.prompt_field = "tokens";
    request.cap_max_tokens = true;
  } else {
    request.prompts.emplace_back(std::move(chat));
  }
  CADRE_TRY(FillKvTransfer(api, body, http, request, options));
  const bool return_prompt_text = GetBool(body, "return_prompt_text", false);
  return std::make_shared<ChatAnswer>(api, std::move(options), writer, std::move(echoed), return_prompt_text)
      ->Start(std::move(request));
}

}  // namespace

Status ChatCompletions(Api& api, const http::Request& http, const WriterPtr& writer) {
  CADRE_ASSIGN(const Json body, ParseBody(http.body, ChatFields(), api.notes));
  return AnswerChat(api, body, nullptr, http, writer);
}

// A turn of a conversation whose tokens the client knows exactly, so that nothing is rendered and encoded
// anew.
Status ChatCompletionsTokens(Api& api, const http::Request& http, const WriterPtr& writer) {
  CADRE_ASSIGN(const Json body, ParseBody(http.body, ChatTokensFields(), api.notes));
  const Json* const tokens = GetField(body, "tokens");
  if (tokens == nullptr)
    return FailParam(Code::kInvalidArgument, "tokens", "tokens is required: the ids of the prompt");
  return AnswerChat(api, body, tokens, http, writer);
}

}  // namespace cadre::serve
