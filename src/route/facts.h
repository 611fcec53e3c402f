#pragma once
// What of a request decides where it goes.
#include <optional>
#include <string>

#include "base/json.h"
#include "http/message.h"
#include "route/policy.h"

namespace cadre::route {

/// A session's name as a key: long ones as their digest.
std::string KeyOf(std::string_view name);

/// The key of the first header that is there (X-Session-ID, X-User-ID, X-Tenant-ID, X-Request-ID,
/// X-Correlation-ID, X-Trace-ID), else the body's session_id or user, else a digest of the body: equal
/// requests stay together. `body` null: not JSON.
std::string SessionKey(const http::Request& request, const Json* body);

/// Digests of the prompt, the messages or the token ids of a body; prompts of different models or cache salts
/// share none. Empty for a body without a prompt. `num_bytes`, if not null: how long it is, an id being four.
std::vector<uint64_t> PromptChain(const Json& body, int64_t* num_bytes = nullptr);

/// The body's cache_salt; empty: none.
std::string CacheSalt(const Json& body);

}  // namespace cadre::route
