#include "sys/limits.h"

#include <sys/resource.h>
#include <sys/statvfs.h>

#include <algorithm>

#include "sys/cgroup.h"
#include "sys/files.h"

namespace cadre::sys {
namespace {

constexpr size_t kSmallFile = size_t{4} << 20;

int64_t HardLimit(int resource) {
  rlimit limit = {};
  if (getrlimit(static_cast<__rlimit_resource>(resource), &limit) != 0) return -1;
  return limit.rlim_max == RLIM_INFINITY ? -1 : static_cast<int64_t>(limit.rlim_max);
}

// "always [madvise] never" -> "madvise".
std::string Chosen(const std::string& path) {
  const auto text = ReadFile(path, kSmallFile);
  if (!text) return {};
  const size_t begin = text->find('['), end = text->find(']');
  if (begin == std::string::npos || end == std::string::npos || end < begin) return {};
  return text->substr(begin + 1, end - begin - 1);
}

}  // namespace

UserLimits ReadUserLimits() {
  return {.open_files = HardLimit(RLIMIT_NOFILE),
          .locked_bytes = HardLimit(RLIMIT_MEMLOCK),
          .processes = HardLimit(RLIMIT_NPROC)};
}

HugePageInfo ReadHugePages(const std::string& root) {
  const std::string folder = root + "/sys/kernel/mm/transparent_hugepage/";
  HugePageInfo info{.transparent = Chosen(folder + "enabled"), .shared = Chosen(folder + "shmem_enabled")};
  if (const auto text = ReadFile(root + "/proc/sys/vm/nr_hugepages", kSmallFile)) {
    info.reserved = LeadingInt(*text).value_or(0);
  }
  return info;
}

ShmInfo ReadShm(const std::string& path) {
  struct statvfs stat = {};
  if (statvfs(path.c_str(), &stat) != 0) return {};
  const auto unit = static_cast<int64_t>(stat.f_frsize);
  return {.bytes = static_cast<int64_t>(stat.f_blocks) * unit,
          .free_bytes = static_cast<int64_t>(stat.f_bavail) * unit};
}

std::vector<std::string> CpuFlags(const std::string& root) {
  std::vector<std::string> flags;
  const auto text = ReadFile(root + "/proc/cpuinfo", kSmallFile);
  if (!text) return flags;
  for (std::string_view line : Lines(*text)) {
    if (!line.starts_with("flags") && !line.starts_with("Features")) continue;
    line.remove_prefix(std::min(line.find(':'), line.size() - 1) + 1);
    while (!line.empty()) {
      const size_t end = std::min(line.find_first_of(" \t"), line.size());
      if (end > 0) flags.emplace_back(line.substr(0, end));
      line.remove_prefix(std::min(end + 1, line.size()));
    }
    break;
  }
  return flags;
}

PortRange ReadLocalPorts(const std::string& root) {
  const auto text = ReadFile(root + "/proc/sys/net/ipv4/ip_local_port_range", kSmallFile);
  if (!text) return {};
  const auto first = LeadingInt(*text);
  const size_t blank = text->find_first_of(" \t");
  const auto last = blank == std::string::npos ? std::nullopt : LeadingInt(text->substr(blank));
  if (!first || !last || *first < 1 || *last > 65535 || *first > *last) return {};
  return {static_cast<int>(*first), static_cast<int>(*last)};
}

}  // namespace cadre::sys
