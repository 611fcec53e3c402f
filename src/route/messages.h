#pragma once
// What travels on and what stays: headers, targets, and the error object of OpenAI's API.
#include <string>

#include "base/error.h"
#include "http/message.h"

namespace cadre::route {

/// {"error":{"message","type","param","code"}} as JSON text; `type` is vLLM's name of the status.
std::string ErrorText(int status, std::string_view message);
http::Response ErrorResponse(int status, std::string_view message);

/// A request's headers as a worker gets them: without those of the connection (RFC 9110 7.6.1) and the
/// request id, which the router sets.
http::Headers ForwardedHeaders(const http::Headers& headers);
/// A worker's headers as the client gets them: without those of the connection, and what the server writes
/// itself.
http::Headers ReturnedHeaders(const http::Headers& headers);

/// Path and query as they stand in a request line; what a path may not hold is escaped.
std::string TargetOf(const http::Request& request);

/// A fresh id: 32 hex digits.
std::string NewRequestId();
/// The first of `names` that the request brings, if it is printable and at most 256 bytes; else a fresh one.
std::string RequestId(const http::Request& request, const std::vector<std::string>& names);

/// Whether another worker may be asked after this answer: 408, 429, 500, 502, 503, 504.
bool IsRetryable(int status);

}  // namespace cadre::route
