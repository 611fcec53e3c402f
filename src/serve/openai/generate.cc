// POST /inference/v1/generate: token ids in, token ids out; what a trainer samples with.
#include <algorithm>

#include "serve/openai/request.h"
#include "serve/openai/schema.h"

namespace cadre::serve {
namespace {

class TokensAnswer final : public Answer {
 public:
  using Answer::Answer;

 protected:
  void AppendChunk(std::string& out, size_t index, Choice& choice, const session::Delta& delta,
                   bool) override {
    if (delta.tokens.empty() && delta.end == nullptr) return;
    out += frame();
    out += "{\"index\":";
    AppendInt(out, static_cast<int64_t>(index));
    out += ",\"token_ids\":[";
    for (size_t i = 0; i < delta.tokens.size(); ++i) {
      if (i > 0) out += ',';
      AppendInt(out, delta.tokens[i].token);
    }
    out += ']';
    if (options_.logprobs) {
      out += ",\"logprobs\":{\"content\":[";
      AppendContent(out, delta.tokens);
      out += "]}";
    } else {
      out += ",\"logprobs\":null";
    }
    AppendFinish(out, delta.end);
    if (delta.end != nullptr && delta.end->routed.top_k > 0) {
      out += ",\"routed_experts\":";
      AppendRoutedObject(out, delta.end->routed);
    }
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
    out += ",\"token_ids\":";
    AppendInts(out, choice.token_ids);
    out += ",\"logprobs\":";
    out += options_.logprobs ? "{\"content\":[" + choice.logprobs + "]}" : "null";
    out += ",\"finish_reason\":\"";
    out += choice.finish_reason;
    out += "\",\"stop_reason\":";
    AppendStopReason(out, choice.stop_reason);
    out += ",\"routed_experts\":";
    AppendRoutedObject(out, choice.routed);
  }

  void AppendExtras(std::string& out) override {
    out += ",\"prompt_logprobs\":";
    if (options_.prompt_logprobs) {
      AppendPromptLogprobs(out, choices_[0]);
    } else {
      out += "null";
    }
    out += ",\"kv_transfer_params\":null";
  }

 private:
  static void AppendEntry(std::string& out, const engine::TokenLogprob& entry) {
    out += Format("{{\"token\":\"token_id:{}\",\"logprob\":", entry.token);
    AppendLogprob(out, entry.logprob);
  }

  void AppendContent(std::string& out, std::span<const engine::GeneratedToken> tokens) const {
    AppendLogprobContent(out, tokens, *options_.logprobs, AppendEntry);
  }
};

// The fields of sampling_params are those of a completion; what frames them has names of its own.
Result<Json> SamplingOf(Api& api, const Json& body) {
  const Json* given = GetField(body, "sampling_params");
  Json sampling = given == nullptr ? Json(Json::Object{}) : *given;
  for (const std::string_view name : {"stream", "stream_options", "cache_salt", "priority", "request_id"}) {
    if (sampling.Find(name) != nullptr) {
      return FailParam(Code::kInvalidArgument, "sampling_params",
                       "'{}' stands beside sampling_params, not in it", name);
    }
    if (const Json* value = GetField(body, name)) sampling.Set(std::string(name), *value);
  }
  return ParseBody(sampling.Dump(), CompletionFields(), api.notes);
}

}  // namespace

Status GenerateTokens(Api& api, const http::Request& http, const WriterPtr& writer) {
  CADRE_ASSIGN(const Json body, ParseBody(http.body, GenerateFields(), api.notes));
  CADRE_ASSIGN(const std::string adapter, AdapterOf(api, body));
  const Json* ids = GetField(body, "token_ids");
  if (ids == nullptr || ids->AsArray().empty())
    return FailParam(Code::kInvalidArgument, "token_ids", "token_ids is required: the ids of the prompt");
  CADRE_ASSIGN(const Json sampling, SamplingOf(api, body));
  session::GenerateRequest request;
  CADRE_TRY(FillRequest(api, sampling, http, request));
  session::TokenPrompt prompt;
  for (const Json& id : ids->AsArray()) prompt.ids.push_back(id.AsInt());
  request.prompts.emplace_back(std::move(prompt));
  request.prompt_field = "token_ids";
  request.fill_context = true;    // without max_tokens: the rest of the context
  request.cap_max_tokens = true;  // only a prompt can be too long
  AnswerOptions options;
  CADRE_TRY(FillAnswer(api, sampling, http, "", options));
  options.return_token_ids = options.tokens_as_ids = true;
  if (const Json* logprobs = GetField(sampling, "logprobs")) {
    request.sampling.logprobs = logprobs->AsInt();
    options.logprobs = static_cast<int>(std::clamp<int64_t>(logprobs->AsInt(), -1, INT32_MAX));
  }
  request.id = options.id;
  request.adapter = adapter;
  if (!adapter.empty()) options.model = adapter;
  return std::make_shared<TokensAnswer>(api, std::move(options), writer)->Start(std::move(request));
}

}  // namespace cadre::serve
