#include "route/messages.h"

#include <algorithm>
#include <atomic>
#include <span>

#include "base/json.h"
#include "base/random.h"

namespace cadre::route {
namespace {

constexpr size_t kMaxIdBytes = 256;

std::string_view TypeName(int status) {
  switch (status) {
    case 400:
      return "BadRequestError";
    case 404:
      return "NotFoundError";
    case 429:
      return "RateLimitError";
    case 502:
      return "BadGatewayError";
    case 503:
      return "ServiceUnavailableError";
    case 504:
      return "DeadlineExceededError";
    default:
      return status < 500 ? "BadRequestError" : "InternalServerError";
  }
}

constexpr std::string_view kOfConnection[] = {"Connection", "Keep-Alive",        "Proxy-Connection",
                                              "TE",         "Transfer-Encoding", "Trailer",
                                              "Upgrade",    "Content-Length",    "Proxy-Authenticate"};

bool IsOneOf(std::string_view name, std::span<const std::string_view> names) {
  return std::ranges::any_of(names, [&](std::string_view each) { return http::EqualNoCase(each, name); });
}

// Connection: a, b names further headers of the connection.
bool IsNamedByConnection(const http::Headers& headers, std::string_view name) {
  const std::string* list = http::FindHeader(headers, "Connection");
  if (list == nullptr) return false;
  std::string_view rest = *list;
  while (!rest.empty()) {
    const size_t end = std::min(rest.find(','), rest.size());
    std::string_view word = rest.substr(0, end);
    while (word.starts_with(' ')) word.remove_prefix(1);
    while (word.ends_with(' ')) word.remove_suffix(1);
    if (http::EqualNoCase(word, name)) return true;
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return false;
}

http::Headers Without(const http::Headers& headers, std::span<const std::string_view> names) {
  http::Headers out;
  for (const auto& header : headers) {
    if (IsOneOf(header.first, kOfConnection) || IsOneOf(header.first, names) ||
        IsNamedByConnection(headers, header.first))
      continue;
    out.push_back(header);
  }
  return out;
}

}  // namespace

std::string ErrorText(int status, std::string_view message) {
  return Json(Json::Object{{"error", Json::Object{{"message", message},
                                                  {"type", TypeName(status)},
                                                  {"param", nullptr},
                                                  {"code", status}}}})
      .Dump();
}

http::Response ErrorResponse(int status, std::string_view message) {
  http::Response response;
  response.status = status;
  response.body = ErrorText(status, message);
  if (status == 429 || status == 503) response.headers.emplace_back("Retry-After", "1");
  return response;
}

http::Headers ForwardedHeaders(const http::Headers& headers) {
  constexpr std::string_view kOurs[] = {"Host", "Expect", "X-Request-Id", "X-KV-Target"};
  return Without(headers, kOurs);
}

http::Headers ReturnedHeaders(const http::Headers& headers) {
  constexpr std::string_view kOurs[] = {"Date", "Server", "Content-Type", "X-Request-Id"};
  return Without(headers, kOurs);
}

std::string TargetOf(const http::Request& request) {
  constexpr std::string_view kPlain = "-._~!$&'()*+,;=:@/";
  std::string out;
  if (!request.path.starts_with('/')) out += '/';
  for (const char c : request.path) {
    const auto byte = static_cast<unsigned char>(c);
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       kPlain.find(c) != kPlain.npos;
    if (plain) {
      out += c;
    } else {
      out += Format("%{:02X}", byte);
    }
  }
  if (request.query.empty()) return out;
  out += '?';
  out += request.query;
  return out;
}

std::string NewRequestId() {
  static const uint64_t seed = EntropySeed();
  static std::atomic<uint64_t> count{0};
  const auto words = Philox(seed, 1, count.fetch_add(1));
  return Format("{:08x}{:08x}{:08x}{:08x}", words[0], words[1], words[2], words[3]);
}

std::string RequestId(const http::Request& request, const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    const std::string* value = request.Header(name);
    if (value == nullptr || value->empty() || value->size() > kMaxIdBytes) continue;
    if (std::ranges::all_of(*value, [](char c) { return c > ' ' && c < 0x7f; })) return *value;
  }
  return NewRequestId();
}

bool IsRetryable(int status) {
  return status == 408 || status == 429 || status == 500 || (status >= 502 && status <= 504);
}

}  // namespace cadre::route
