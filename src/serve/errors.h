#pragma once
// OpenAI's error object, and the one table from error codes to HTTP.
#include "base/error.h"
#include "http/message.h"

namespace cadre::serve {

/// 400 for what the client can mend, 404, 401, 429, 503, 504, 499 or 500.
int HttpStatus(Code code);

/// {"error":{"message","type","param","code"}} without the braces around: what goes into a stream as well.
std::string ErrorBody(int status, std::string_view message, std::string_view param);

http::Response ErrorResponse(int status, std::string_view message, std::string_view param = {});
/// 429 carries Retry-After.
http::Response ErrorResponse(const Error& error);

}  // namespace cadre::serve
