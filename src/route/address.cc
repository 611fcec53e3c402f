#include "route/address.h"

#include <algorithm>
#include <charconv>

namespace cadre::route {
namespace {

constexpr int kMaxDpRank = 65535;

Result<int> ParseNumber(std::string_view text, int max, std::string_view whole, const char* what) {
  int value = -1;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (ec != std::errc() || end != text.data() + text.size() || value < 0 || value > max) {
    return Fail(Code::kInvalidArgument, "'{}': the {} must be a number up to {}, not '{}'", Excerpt(whole),
                what, max, Excerpt(text, 20));
  }
  return value;
}

bool IsHostChar(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '-' ||
         c == '_';
}

// "host", "host:port" or "[::1]:port".
Status ParseHostPort(std::string_view text, std::string_view whole, WorkerAddress& address) {
  std::string_view port;
  if (text.starts_with('[')) {
    const size_t end = text.find(']');
    if (end == text.npos)
      return Fail(Code::kInvalidArgument, "'{}': no ']' after the address", Excerpt(whole));
    address.host = text.substr(1, end - 1);
    port = text.substr(end + 1);
    if (!std::ranges::all_of(address.host, [](char c) { return IsHostChar(c) || c == ':'; }))
      address.host.clear();
  } else {
    const size_t colon = std::min(text.find(':'), text.size());
    address.host = text.substr(0, colon);
    port = text.substr(colon);
    if (!std::ranges::all_of(address.host, IsHostChar)) address.host.clear();
  }
  if (address.host.empty()) {
    return Fail(Code::kInvalidArgument, "'{}' is no address of a worker; wanted is http://HOST:PORT",
                Excerpt(whole));
  }
  address.port = address.tls ? 443 : 80;
  if (port.empty()) return {};
  if (port.front() != ':')
    return Fail(Code::kInvalidArgument, "'{}' is no address of a worker; wanted is http://HOST:PORT",
                Excerpt(whole));
  CADRE_ASSIGN(address.port, ParseNumber(port.substr(1), 65535, whole, "port"));
  if (address.port == 0) return Fail(Code::kInvalidArgument, "'{}': port 0 is no port", Excerpt(whole));
  return {};
}

std::string_view NextWord(std::string_view& line) {
  const size_t start = std::min(line.find_first_not_of(" \t\r"), line.size());
  line.remove_prefix(start);
  const size_t end = std::min(line.find_first_of(" \t\r"), line.size());
  const std::string_view word = line.substr(0, end);
  line.remove_prefix(end);
  return word;
}

Result<Role> RoleOfWord(std::string_view word, bool pairs) {
  if (word == "prefill" && pairs) return Role::kPrefill;
  if (word == "decode" && pairs) return Role::kDecode;
  if (word == "worker" && !pairs) return Role::kPlain;
  return Fail(Code::kInvalidArgument, "'{}' is no role here; wanted is {}", Excerpt(word, 40),
              pairs ? "prefill URL or decode URL" : "URL or worker URL");
}

Result<WorkerAddress> ParseLine(std::string_view line, bool pairs) {
  const std::string_view first = NextWord(line), second = NextWord(line);
  if (!NextWord(line).empty()) return Fail(Code::kInvalidArgument, "more than a role and a URL");
  if (second.empty() && !pairs) return ParseWorkerUrl(first, Role::kPlain);
  if (second.empty())
    return Fail(Code::kInvalidArgument, "'{}' has no role; wanted is prefill URL or decode URL",
                Excerpt(first));
  CADRE_ASSIGN(const Role role, RoleOfWord(first, pairs));
  return ParseWorkerUrl(second, role);
}

}  // namespace

const char* RoleName(Role role) {
  switch (role) {
    case Role::kPlain:
      return "worker";
    case Role::kPrefill:
      return "prefill";
    case Role::kDecode:
      return "decode";
  }
  return "";
}

std::string WorkerAddress::HostPort() const {
  const bool is_v6 = host.find(':') != host.npos;
  return Format("{}{}{}:{}", is_v6 ? "[" : "", host, is_v6 ? "]" : "", port);
}
std::string WorkerAddress::Url() const {
  return Format("{}://{}", tls ? "https" : "http", HostPort());
}
std::string WorkerAddress::Name() const {
  return dp_rank < 0 ? Url() : Format("{}@{}", Url(), dp_rank);
}
std::string WorkerAddress::Key() const {
  return Format("{} {}", RoleName(role), Name());
}

Result<WorkerAddress> ParseWorkerUrl(std::string_view text, Role role) {
  WorkerAddress address;
  address.role = role;
  std::string_view rest = text;
  if (const size_t scheme = rest.find("://"); scheme != rest.npos) {
    const std::string_view name = rest.substr(0, scheme);
    if (name != "http" && name != "https") {
      return Fail(Code::kUnsupported, "'{}': workers are reached by http or https, not '{}'", Excerpt(text),
                  Excerpt(name, 20));
    }
    address.tls = name == "https";
    rest.remove_prefix(scheme + 3);
  }
  if (const size_t at = rest.rfind('@'); at != rest.npos) {
    CADRE_ASSIGN(address.dp_rank, ParseNumber(rest.substr(at + 1), kMaxDpRank, text, "rank"));
    rest = rest.substr(0, at);
  }
  while (rest.ends_with('/')) rest.remove_suffix(1);
  if (rest.ends_with("/v1")) rest.remove_suffix(3);
  CADRE_TRY(ParseHostPort(rest, text, address));
  return address;
}

Result<std::vector<WorkerAddress>> ParseWorkerFile(std::string_view text, bool pairs) {
  std::vector<WorkerAddress> found;
  int number = 0;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    ++number;
    line = line.substr(0, line.find('#'));
    std::string_view probe = line;
    if (NextWord(probe).empty()) continue;
    auto address = ParseLine(line, pairs);
    if (!address) return Fail(address.error().code, "line {}: {}", number, address.error().message);
    found.push_back(*std::move(address));
  }
  return found;
}

}  // namespace cadre::route
