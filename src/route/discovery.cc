#include "route/discovery.h"

#include <netdb.h>
#include <sys/socket.h>

#include <algorithm>
#include <memory>

#include "base/log.h"
#include "sys/files.h"

namespace cadre::route {
namespace {

constexpr size_t kMaxFileBytes = 1 << 20;
constexpr size_t kMaxAddresses = 1024;

}  // namespace

Result<std::vector<std::string>> ResolveHost(const std::string& host) {
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (const int failed = getaddrinfo(host.c_str(), nullptr, &hints, &found); failed != 0)
    return Fail(Code::kNotFound, "cannot resolve '{}': {}", host, gai_strerror(failed));
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owner(found, freeaddrinfo);
  std::vector<std::string> addresses;
  for (const addrinfo* at = found; at != nullptr && addresses.size() < kMaxAddresses; at = at->ai_next) {
    char text[NI_MAXHOST];
    if (getnameinfo(at->ai_addr, at->ai_addrlen, text, sizeof text, nullptr, 0, NI_NUMERICHOST) == 0)
      addresses.emplace_back(text);
  }
  std::ranges::sort(addresses);
  addresses.erase(std::ranges::unique(addresses).begin(), addresses.end());
  return addresses;
}

std::optional<std::vector<WorkerAddress>> Discovery::Poll(TimePoint now) {
  if (!options_.worker_file.empty() && (!next_file_ || now >= *next_file_)) {
    PollFile();
    next_file_ = now + options_.file_interval;
  }
  if (!options_.dns.empty() && (!next_dns_ || now >= *next_dns_)) {
    for (size_t i = 0; i < options_.dns.size(); ++i) PollService(i);
    next_dns_ = now + options_.dns_interval;
  }
  std::vector<WorkerAddress> all = options_.workers;
  all.insert(all.end(), from_file_.begin(), from_file_.end());
  for (const auto& [service, found] : from_dns_) all.insert(all.end(), found.begin(), found.end());
  if (last_ == all) return std::nullopt;
  last_ = all;
  return all;
}

// Compared as text: a time stamp misses two changes in one tick, and the file is small.
void Discovery::PollFile() {
  const auto text = sys::ReadFile(options_.worker_file, kMaxFileBytes);
  if (!text) return Trouble(options_.worker_file, text.error().message);
  if (*text != file_text_) {
    file_text_ = *text;
    auto parsed = ParseWorkerFile(*text, options_.pairs);
    file_fault_ =
        parsed ? ""
               : Format("{}: {}; the workers stay as they are", options_.worker_file, parsed.error().message);
    if (parsed) from_file_ = *std::move(parsed);
  }
  Trouble(options_.worker_file, file_fault_);
}

void Discovery::PollService(size_t service) {
  const WorkerAddress& named = options_.dns[service].service;
  const auto addresses = resolver_(named.host);
  if (!addresses) return Trouble(named.Key(), addresses.error().message);
  std::vector<WorkerAddress> found;
  for (const std::string& address : *addresses) {
    found.push_back(named);
    found.back().host = address;
  }
  from_dns_[service] = std::move(found);
  Trouble(named.Key(), "");
}

void Discovery::Trouble(const std::string& source, const std::string& what) {
  std::string& said = troubles_[source];
  if (said == what) return;
  if (!what.empty()) LogWarning("looking for workers: {}", what);
  said = what;
}

}  // namespace cadre::route
