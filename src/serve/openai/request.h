#pragma once
// From a checked body to a session's request: what chat and text completions have in common on the way down.
#include "serve/api.h"
#include "serve/openai/answer.h"

namespace cadre::serve {

/// The name is the model's own, not an adapter's.
bool IsServedName(const Api& api, const std::string& name);

/// The model a body names is one of ours or a loaded adapter (or it names none). Errors: kNotFound.
Status CheckModel(const Api& api, const Json& body);

/// The adapter that a body names as its model; empty where it names the model itself or nothing. Whether such
/// an adapter is loaded, the engine knows. Errors: kNotFound where there are no adapters.
Result<std::string> AdapterOf(const Api& api, const Json& body);

/// Fills everything but the prompts, max_tokens' name and what concerns logprobs.
Status FillRequest(const Api& api, const Json& body, const http::Request& http,
                   session::GenerateRequest& out);

/// Fills everything but the object names, logprobs and echo. Errors: stream_options without stream.
Status FillAnswer(const Api& api, const Json& body, const http::Request& http, const char* prefix,
                  AnswerOptions& out);

/// The chat of a body (also of /tokenize). Errors: kInvalidArgument, kUnsupported with the field.
Result<session::ChatPrompt> ChatOf(const Api& api, const Json& body);

}  // namespace cadre::serve
