#pragma once
// Requests and responses as the rest of Cadre sees them: plain strings, no foreign types.
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace cadre::http {

using Headers = std::vector<std::pair<std::string, std::string>>;

/// The value of the first header of that name (any case); nullptr if there is none.
const std::string* FindHeader(const Headers& headers, std::string_view name);

/// ASCII comparison without case.
bool EqualNoCase(std::string_view a, std::string_view b);

struct Request {
  std::string method;  ///< as sent: "GET", "POST", ...
  std::string path;    ///< without the query, percent escapes resolved
  std::string query;   ///< after the '?', as sent
  Headers headers;
  std::string body;
  std::string peer;  ///< "127.0.0.1:51234", or "unix"; for logs

  const std::string* Header(std::string_view name) const { return FindHeader(headers, name); }
  /// The value of a query parameter, percent escapes resolved; empty if it is not there.
  std::string QueryValue(std::string_view name) const;
};

struct Response {
  int status = 200;
  std::string content_type = "application/json";  ///< empty: no such header
  Headers headers = {};
  std::string body = {};
};

/// "Not Found" for 404, and so on; "Unknown" for numbers that HTTP does not name.
std::string_view ReasonPhrase(int status);

/// Resolves %41 and, in queries, '+'. Bad escapes stay as they are.
std::string PercentDecode(std::string_view text, bool plus_is_space);

}  // namespace cadre::http
