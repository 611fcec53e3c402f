#pragma once
// Where a worker is.
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace cadre::route {

enum class Role { kPlain, kPrefill, kDecode };

/// "worker", "prefill" or "decode".
const char* RoleName(Role role);

struct WorkerAddress {
  Role role = Role::kPlain;
  bool tls = false;
  std::string host;
  int port = 80;
  int dp_rank = -1;        ///< -1: the worker chooses
  std::string kv_address;  ///< HOST:PORT of P2pNcclConnector; empty: not used

  std::string Url() const;   ///< "http://10.0.0.1:8000"
  std::string Name() const;  ///< the URL, and "@rank" if there is one
  std::string HostPort() const;
  std::string Key() const;  ///< role and name: equal for equal workers

  friend bool operator==(const WorkerAddress&, const WorkerAddress&) = default;
};

/// Reads http://host:port, https://host:port or host:port, with "@rank" or a "/" or "/v1" behind it.
/// Errors: kInvalidArgument; kUnsupported for other schemes.
Result<WorkerAddress> ParseWorkerUrl(std::string_view text, Role role);

/// Lines of "[prefill|decode|worker] URL"; '#' begins a comment. `pairs`: whether roles are prefill and
/// decode, and then every line names one. Errors: kInvalidArgument with the line's number.
Result<std::vector<WorkerAddress>> ParseWorkerFile(std::string_view text, bool pairs);

}  // namespace cadre::route
