#include "sys/cpu.h"

#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <set>

#include "base/format.h"
#include "sys/cgroup.h"
#include "sys/files.h"

namespace cadre::sys {
namespace {

constexpr size_t kSmallFile = size_t{4} << 20;
constexpr int kMaxCpu = 65535;

std::optional<int> TakeNumber(std::string_view& text) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || value < 0 || value > kMaxCpu) return std::nullopt;
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  return value;
}

std::string_view Trim(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t\r\n");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t\r\n") - begin + 1);
}

std::vector<int> ReadCpuList(const std::string& path) {
  const auto text = ReadFile(path, kSmallFile);
  if (!text) return {};
  auto cpus = ParseCpuList(*text);
  return cpus ? *cpus : std::vector<int>{};
}

// CPUs' worth of time that one group grants; 0: no limit.
double QuotaOf(const std::string& folder, bool v2) {
  const auto first = ReadFile(folder + (v2 ? "cpu.max" : "cpu.cfs_quota_us"), kSmallFile);
  if (!first) return 0;
  const auto quota = LeadingInt(*first);
  if (!quota || *quota <= 0) return 0;  // "max", or -1 in v1
  std::optional<int64_t> period;
  if (v2) {
    const size_t blank = first->find(' ');
    if (blank != std::string::npos) period = LeadingInt(std::string_view(*first).substr(blank));
  } else if (const auto text = ReadFile(folder + "cpu.cfs_period_us", kSmallFile)) {
    period = LeadingInt(*text);
  }
  return period && *period > 0 ? static_cast<double>(*quota) / static_cast<double>(*period) : 0;
}

}  // namespace

Result<std::vector<int>> ParseCpuList(std::string_view text) {
  const auto fail = [&] {
    return Fail(Code::kInvalidArgument, "'{}' is no CPU list; write it like 0-3,8", Trim(text));
  };
  std::set<int> cpus;
  std::string_view rest = Trim(text);
  while (!rest.empty()) {
    const auto first = TakeNumber(rest);
    if (!first) return fail();
    auto last = first;
    if (rest.starts_with('-')) {
      rest.remove_prefix(1);
      last = TakeNumber(rest);
      if (!last || *last < *first) return fail();
    }
    for (int cpu = *first; cpu <= *last; ++cpu) cpus.insert(cpu);
    if (rest.empty()) break;
    if (!rest.starts_with(',') || rest.size() == 1) return fail();
    rest.remove_prefix(1);
  }
  return std::vector<int>(cpus.begin(), cpus.end());
}

std::string FormatCpuList(const std::vector<int>& cpus) {
  std::string text;
  for (size_t i = 0; i < cpus.size();) {
    size_t end = i;
    while (end + 1 < cpus.size() && cpus[end + 1] == cpus[end] + 1) ++end;
    if (!text.empty()) text += ',';
    text += end == i ? Format("{}", cpus[i]) : Format("{}-{}", cpus[i], cpus[end]);
    i = end + 1;
  }
  return text;
}

std::vector<int> AllowedCpus() {
  // The mask may be wider than cpu_set_t's 1024; the kernel says EINVAL until it fits.
  for (size_t count = 1024; count <= size_t{kMaxCpu} + 1; count *= 4) {
    const size_t bytes = CPU_ALLOC_SIZE(count);
    cpu_set_t* set = CPU_ALLOC(count);
    std::vector<int> cpus;
    if (set != nullptr && sched_getaffinity(0, bytes, set) == 0) {
      for (size_t cpu = 0; cpu < count; ++cpu) {
        if (CPU_ISSET_S(cpu, bytes, set)) cpus.push_back(static_cast<int>(cpu));
      }
    }
    CPU_FREE(set);
    if (!cpus.empty()) return cpus;
  }
  return {0};
}

double CgroupCpuQuota(const std::string& root) {
  double tightest = 0;
  for (const CgroupFolders& groups : FindCgroups("cpu", root)) {
    for (const std::string& folder : groups.folders) {
      const double quota = QuotaOf(folder, groups.v2);
      if (quota > 0 && (tightest == 0 || quota < tightest)) tightest = quota;
    }
  }
  return tightest;
}

int UsableCpus() {
  const int allowed = static_cast<int>(AllowedCpus().size());
  const double quota = CgroupCpuQuota();
  return quota > 0 ? std::clamp(static_cast<int>(std::ceil(std::min(quota, 1e6))), 1, allowed) : allowed;
}

std::vector<int> OneCpuPerCore(const std::vector<int>& allowed, const std::string& root) {
  std::vector<int> cores;
  std::set<int> taken;
  for (const int cpu : allowed) {
    if (taken.contains(cpu)) continue;
    cores.push_back(cpu);
    for (const int sibling :
         ReadCpuList(Format("{}/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list", root, cpu))) {
      taken.insert(sibling);
    }
  }
  return cores;
}

std::string CpuModelName(const std::string& root) {
  const auto text = ReadFile(root + "/proc/cpuinfo", kSmallFile);
  if (text) {
    for (const std::string_view line : Lines(*text)) {
      const size_t colon = line.find(':');
      if (colon == std::string_view::npos || !line.starts_with("model name")) continue;
      return std::string(Trim(line.substr(colon + 1)));
    }
  }
  return "unknown CPU";
}

Status RequestTileState() {
#if defined(__x86_64__)
  constexpr long kRequestPermission = 0x1023,
                 kTileData = 18;  // asm/prctl.h: ARCH_REQ_XCOMP_PERM; XFEATURE_XTILEDATA
  if (syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0) return {};
  return Fail(
      Code::kUnsupported,
      "Linux does not grant AMX's tile state (arch_prctl: {}); it can from version 5.16 on, unless it "
      "was started with a setting that turns AMX off, or a thread's signal stack is too small",
      std::strerror(errno));
#else
  return Fail(Code::kUnsupported, "AMX is a part of x86-64");
#endif
}

std::vector<NumaNode> NumaNodes(const std::string& root) {
  std::vector<NumaNode> nodes;
  for (const int id : ReadCpuList(root + "/sys/devices/system/node/online")) {
    const std::string folder = Format("{}/sys/devices/system/node/node{}/", root, id);
    NumaNode node{.id = id, .cpus = ReadCpuList(folder + "cpulist"), .memory_bytes = 0};
    if (const auto meminfo = ReadFile(folder + "meminfo", kSmallFile)) {
      const size_t at = meminfo->find("MemTotal:");
      if (at != std::string::npos) {
        node.memory_bytes = LeadingInt(std::string_view(*meminfo).substr(at + 9)).value_or(0) * 1024;
      }
    }
    nodes.push_back(std::move(node));
  }
  if (nodes.empty()) nodes.push_back({.id = 0, .cpus = AllowedCpus(), .memory_bytes = 0});
  return nodes;
}

}  // namespace cadre::sys
