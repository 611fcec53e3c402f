// POST /v1/completions
#include <algorithm>

#include "serve/openai/kv_transfer.h"
#include "serve/openai/request.h"
#include "serve/openai/schema.h"

namespace cadre::serve {
namespace {

// Code points: Python's len(), which is what text_offset counts in.
int64_t NumChars(std::string_view text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; });
}

class CompletionAnswer final : public Answer {
 public:
  using Answer::Answer;

 protected:
  void AppendChunk(std::string& out, size_t index, Choice& choice, const session::Delta& delta,
                   bool first) override {
    const bool echoes = first && options_.echo;
    const bool shows_tokens = options_.logprobs.has_value() || options_.return_token_ids;
    if (delta.text.empty() && delta.end == nullptr && !shows_tokens && !echoes) return;
    out += frame();
    out += "{\"index\":";
    AppendInt(out, static_cast<int64_t>(index));
    out += ",\"text\":";
    AppendJsonString(out, echoes ? PromptTextOf(index) + std::string(delta.text) : delta.text);
    out += ",\"logprobs\":";
    if (options_.logprobs) {
      choice.tokens.clear();
      choice.token_logprobs.clear();
      choice.top_logprobs.clear();
      choice.text_offset.clear();
      KeepLogprobs(choice, index, delta, first);
      AppendLogprobs(out, choice);
    } else {
      out += "null";
    }
    AppendFinish(out, delta.end);
    if (options_.return_token_ids) {
      if (first) {
        out += ",\"prompt_token_ids\":";
        AppendInts(out, PromptOf(index));
      }
      out += ",\"token_ids\":[";
      for (size_t i = 0; i < delta.tokens.size(); ++i) {
        if (i > 0) out += ',';
        AppendInt(out, delta.tokens[i].token);
      }
      out += ']';
    }
    out += "}]";
    AppendChunkUsage(out, index, choice);
    out += "}\n\n";
  }

  void Keep(Choice& choice, size_t index, const session::Delta& delta, bool first) override {
    if (first && options_.echo) choice.text = PromptTextOf(index);
    if (options_.logprobs) KeepLogprobs(choice, index, delta, first);
  }

  void AppendChoice(std::string& out, size_t index, const Choice& choice) override {
    out += ",\"text\":";
    AppendJsonString(out, choice.text);
    out += ",\"logprobs\":";
    if (options_.logprobs) {
      AppendLogprobs(out, choice);
    } else {
      out += "null";
    }
    out += ",\"finish_reason\":\"";
    out += choice.finish_reason;
    out += "\",\"stop_reason\":";
    AppendStopReason(out, choice.stop_reason);
    out += ",\"prompt_logprobs\":";
    if (options_.prompt_logprobs) {
      AppendPromptLogprobs(out, choice);
    } else {
      out += "null";
    }
    if (choice.routed.top_k > 0) {
      out += ",\"routed_experts\":";
      AppendRoutedNpy(out, choice.routed);
    }
    if (!options_.return_token_ids) return;
    out += ",\"token_ids\":";
    AppendInts(out, choice.token_ids);
    out += ",\"prompt_token_ids\":";
    AppendInts(out, PromptOf(index));
  }

  void AppendExtras(std::string&) override {}

 private:
  void KeepLogprobs(Choice& choice, size_t index, const session::Delta& delta, bool first) const {
    if (first && options_.echo) {
      const std::vector<int32_t>& prompt = PromptOf(index);
      for (size_t i = 0; i < prompt.size(); ++i) {
        KeepToken(choice, prompt[i],
                  i < choice.prompt.logprobs.size() ? choice.prompt.logprobs[i] : engine::Logprobs());
      }
    }
    for (const engine::GeneratedToken& token : delta.tokens) KeepToken(choice, token.token, token.logprobs);
  }

  // The chosen token and the best ones, as vLLM: up to logprobs + 1 entries.
  void KeepToken(Choice& choice, int32_t token, const engine::Logprobs& logprobs) const {
    const std::string text = TokenText(token);
    const bool is_first = choice.tokens.empty();
    for (std::string* list :
         {&choice.tokens, &choice.token_logprobs, &choice.top_logprobs, &choice.text_offset}) {
      if (!is_first) *list += ',';
    }
    AppendJsonString(choice.tokens, text);
    AppendInt(choice.text_offset, choice.text_chars);
    choice.text_chars += NumChars(text);
    if (logprobs.empty()) {  // a prompt's first token
      choice.token_logprobs += "null";
      choice.top_logprobs += "null";
      return;
    }
    AppendLogprob(choice.token_logprobs, logprobs[0].logprob);
    choice.top_logprobs += '{';
    for (size_t k = 0;
         k < logprobs.size() && (*options_.logprobs < 0 || k <= static_cast<size_t>(*options_.logprobs));
         ++k) {
      if (k > 0 && logprobs[k].token == token) continue;
      if (k > 0) choice.top_logprobs += ',';
      AppendJsonString(choice.top_logprobs, k == 0 ? text : TokenText(logprobs[k].token));
      choice.top_logprobs += ':';
      AppendLogprob(choice.top_logprobs, logprobs[k].logprob);
    }
    choice.top_logprobs += '}';
  }

  static void AppendLogprobs(std::string& out, const Choice& choice) {
    out += "{\"text_offset\":[" + choice.text_offset + "],\"token_logprobs\":[" + choice.token_logprobs +
           "],\"tokens\":[" + choice.tokens + "],\"top_logprobs\":[" + choice.top_logprobs + "]}";
  }
};

session::TokenPrompt Tokens(const Json& list) {
  session::TokenPrompt out;
  out.ids.reserve(list.AsArray().size());
  for (const Json& id : list.AsArray()) out.ids.push_back(id.AsInt());
  return out;
}

bool AllInts(const Json& list) {
  return list.is_array() &&
         std::all_of(list.AsArray().begin(), list.AsArray().end(), [](const Json& e) { return e.is_int(); });
}

// A text, ids, a list of texts, or a list of lists of ids.
Result<std::vector<session::PromptInput>> Prompts(const Json& body) {
  const auto bad = [] {
    return FailParam(
        Code::kInvalidArgument, "prompt",
        "prompt must be a string, a list of token ids, a list of strings or a list of lists of token ids");
  };
  const Json* prompt = GetField(body, "prompt");
  if (prompt == nullptr)
    return FailParam(Code::kInvalidArgument, "prompt",
                     "prompt is required: Either prompt or prompt_embeds must be provided and non-empty.");
  std::vector<session::PromptInput> out;
  if (prompt->is_string()) {
    out.emplace_back(session::TextPrompt{prompt->AsString()});
    return out;
  }
  if (!prompt->is_array() || prompt->AsArray().empty()) return bad();
  if (AllInts(*prompt)) {
    out.emplace_back(Tokens(*prompt));
    return out;
  }
  const bool texts = prompt->AsArray()[0].is_string();
  for (const Json& entry : prompt->AsArray()) {
    if (texts ? !entry.is_string() : !AllInts(entry)) return bad();
    if (texts) {
      out.emplace_back(session::TextPrompt{entry.AsString()});
    } else {
      out.emplace_back(Tokens(entry));
    }
  }
  return out;
}

}  // namespace

Status Completions(Api& api, const http::Request& http, const WriterPtr& writer) {
  CADRE_ASSIGN(const Json body, ParseBody(http.body, CompletionFields(), api.notes));
  CADRE_ASSIGN(const std::string adapter, AdapterOf(api, body));
  session::GenerateRequest request;
  CADRE_TRY(FillRequest(api, body, http, request));
  request.add_special_tokens = GetBool(body, "add_special_tokens", true);
  CADRE_ASSIGN(request.prompts, Prompts(body));
  // As in vLLM: left out it is 16, null asks for all that fits.
  const Json* max_tokens = body.Find("max_tokens");
  request.fill_context = max_tokens != nullptr && max_tokens->is_null();
  AnswerOptions options;
  options.object = options.chunk_object = "text_completion";
  CADRE_TRY(FillAnswer(api, body, http, "cmpl-", options));
  if (const Json* logprobs = GetField(body, "logprobs")) {
    request.sampling.logprobs = logprobs->AsInt();
    options.logprobs = static_cast<int>(std::clamp<int64_t>(logprobs->AsInt(), -1, INT32_MAX));
  }
  request.id = options.id;
  request.adapter = adapter;
  if (!adapter.empty()) options.model = adapter;
  CADRE_TRY(FillKvTransfer(api, body, http, request, options));
  return std::make_shared<CompletionAnswer>(api, std::move(options), writer)->Start(std::move(request));
}

}  // namespace cadre::serve
