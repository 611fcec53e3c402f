// POST /tokenize, POST /detokenize
#include "serve/openai/request.h"
#include "serve/openai/schema.h"

namespace cadre::serve {
namespace {

Status NeedTokenizer(const Api& api) {
  if (api.session.text() != nullptr) return {};
  return Fail(Code::kInvalidArgument, "this server runs without a tokenizer (--skip-tokenizer-init)");
}

}  // namespace

Result<http::Response> Tokenize(Api& api, const http::Request& http) {
  CADRE_ASSIGN(const Json body, ParseBody(http.body, TokenizeFields(), api.notes));
  CADRE_TRY(CheckModel(api, body));
  CADRE_TRY(NeedTokenizer(api));
  session::PromptInput prompt;
  bool add_special = true;
  if (GetField(body, "messages") != nullptr) {
    CADRE_ASSIGN(prompt, ChatOf(api, body));
    add_special = false;
  } else if (GetField(body, "prompt") != nullptr) {
    prompt = session::TextPrompt{GetString(body, "prompt")};
  } else {
    return FailParam(Code::kInvalidArgument, "prompt", "prompt or messages is required");
  }
  CADRE_ASSIGN(const std::vector<int32_t> ids,
               api.session.Tokenize(prompt, GetBool(body, "add_special_tokens", add_special)));
  http::Response response;
  response.body = Format("{{\"count\":{},\"max_model_len\":{},\"tokens\":", ids.size(),
                         api.session.model().max_model_len);
  AppendInts(response.body, ids);
  response.body += ",\"token_strs\":";
  if (GetBool(body, "return_token_strs", false)) {
    for (size_t i = 0; i < ids.size(); ++i) {
      response.body += i == 0 ? '[' : ',';
      AppendJsonString(response.body, api.session.text()->TokenString(ids[i]));
    }
    response.body += ids.empty() ? "[]" : "]";
  } else {
    response.body += "null";
  }
  response.body += '}';
  return response;
}

Result<http::Response> Detokenize(Api& api, const http::Request& http) {
  CADRE_ASSIGN(const Json body, ParseBody(http.body, DetokenizeFields(), api.notes));
  CADRE_TRY(CheckModel(api, body));
  CADRE_TRY(NeedTokenizer(api));
  const Json* tokens = GetField(body, "tokens");
  if (tokens == nullptr)
    return FailParam(Code::kInvalidArgument, "tokens", "tokens is required: a list of token ids");
  std::vector<int64_t> ids;
  for (const Json& id : tokens->AsArray()) ids.push_back(id.AsInt());
  CADRE_ASSIGN(const std::vector<int32_t> checked, api.session.CheckIds(ids, "tokens"));
  http::Response response;
  response.body = "{\"prompt\":";
  AppendJsonString(response.body, api.session.text()->Decode(checked, false));
  response.body += '}';
  return response;
}

}  // namespace cadre::serve
