#pragma once
// Who the workers are: the flags, a file that is watched, and headless services whose addresses are looked up
// again and again. A source that fails keeps what it said last; its trouble is logged once.
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "route/options.h"

namespace cadre::route {

/// The addresses of a host, as numbers. Blocks.
using Resolver = std::function<Result<std::vector<std::string>>(const std::string& host)>;
Result<std::vector<std::string>> ResolveHost(const std::string& host);

class Discovery {
 public:
  Discovery(const Options& options, Resolver resolver) : options_(options), resolver_(std::move(resolver)) {}

  /// Looks at what is due; the workers if they have changed since the last call. The first call looks at
  /// everything and always answers. Blocks for files and the resolver.
  std::optional<std::vector<WorkerAddress>> Poll(TimePoint now);

 private:
  void PollFile();
  void PollService(size_t service);
  void Trouble(const std::string& source, const std::string& what);

  const Options& options_;
  const Resolver resolver_;
  std::optional<TimePoint> next_file_, next_dns_;
  std::string file_text_, file_fault_;
  std::vector<WorkerAddress> from_file_;
  std::map<size_t, std::vector<WorkerAddress>> from_dns_;
  std::optional<std::vector<WorkerAddress>> last_;
  std::map<std::string, std::string> troubles_;  // by source: what was said last
};

}  // namespace cadre::route
