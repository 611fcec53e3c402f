#include "serve/errors.h"

#include "base/json.h"

namespace cadre::serve {
namespace {

// A template's own exception may hold a whole conversation; no person reads further.
constexpr size_t kMaxMessageBytes = 4096;

// The names that vLLM gives; clients switch on the status, people read these.
std::string_view TypeName(int status) {
  switch (status) {
    case 400:
      return "BadRequestError";
    case 401:
      return "AuthenticationError";
    case 403:
      return "PermissionDeniedError";
    case 404:
      return "NotFoundError";
    case 405:
      return "MethodNotAllowedError";
    case 408:
      return "RequestTimeoutError";
    case 414:
      return "URITooLongError";
    case 429:
      return "RateLimitError";
    case 431:
      return "RequestHeaderFieldsTooLargeError";
    case 499:
      return "ClientClosedRequestError";
    case 501:
      return "NotImplementedError";
    case 503:
      return "ServiceUnavailableError";
    case 504:
      return "DeadlineExceededError";
    case 505:
      return "HTTPVersionNotSupportedError";
    default:
      return status < 500 ? "BadRequestError" : "InternalServerError";
  }
}

}  // namespace

int HttpStatus(Code code) {
  switch (code) {
    case Code::kInvalidArgument:
      return 400;
    case Code::kUnsupported:
      return 400;
    case Code::kNotFound:
      return 404;
    case Code::kUnauthenticated:
      return 401;
    case Code::kResourceExhausted:
      return 429;
    case Code::kUnavailable:
      return 503;
    case Code::kDeadlineExceeded:
      return 504;
    case Code::kCancelled:
      return 499;
    case Code::kDataLoss:
      return 500;
    case Code::kInternal:
      return 500;
  }
  return 500;
}

std::string ErrorBody(int status, std::string_view message, std::string_view param) {
  std::string out = "{\"error\":{\"message\":";
  AppendJsonString(out, Excerpt(message, kMaxMessageBytes));
  out += ",\"type\":\"";
  out += TypeName(status);
  out += "\",\"param\":";
  if (param.empty()) {
    out += "null";
  } else {
    AppendJsonString(out, param);
  }
  out += Format(",\"code\":{}}}}}", status);
  return out;
}

http::Response ErrorResponse(int status, std::string_view message, std::string_view param) {
  return {status, "application/json", {}, ErrorBody(status, message, param)};
}

http::Response ErrorResponse(const Error& error) {
  http::Response response = ErrorResponse(HttpStatus(error.code), error.message, error.param);
  if (response.status == 429) response.headers.emplace_back("Retry-After", "1");
  if (response.status == 401) response.headers.emplace_back("WWW-Authenticate", "Bearer");
  return response;
}

}  // namespace cadre::serve
