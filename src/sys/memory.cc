#include "sys/memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <limits>
#include <optional>
#include <string_view>
#include <vector>

#include "base/format.h"
#include "sys/file.h"
#include "sys/threads.h"

namespace cadre::sys {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kSmallFile = 1 << 20;

std::vector<std::string_view> Lines(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    lines.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

// The first integer in `text` after blanks; nullopt for "max" and other words.
std::optional<int64_t> LeadingInt(std::string_view text) {
  const size_t start = text.find_first_not_of(" \t");
  if (start == std::string_view::npos) return std::nullopt;
  text.remove_prefix(start);
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc::result_out_of_range) return std::numeric_limits<int64_t>::max();
  if (error != std::errc()) return std::nullopt;
  return value;
}

// "key   value" or "key: value" lines.
std::optional<int64_t> FindKey(std::string_view text, std::string_view key) {
  for (std::string_view line : Lines(text)) {
    if (!line.starts_with(key)) continue;
    line.remove_prefix(key.size());
    if (line.starts_with(':') || line.starts_with(' ')) return LeadingInt(line.substr(1));
  }
  return std::nullopt;
}

std::optional<int64_t> ReadInt(const std::string& path) {
  const auto text = ReadFile(path, kSmallFile);
  return text ? LeadingInt(*text) : std::nullopt;
}

struct CgroupFiles {
  std::string mount;  // where the hierarchy is mounted
  const char *limit, *used, *stat, *cache_key;
};

// Walks from the process's group up to the mount and takes the tightest limit. Inside a container the group's
// path may not exist under the mount (the namespace's root is mounted there), so missing files are skipped.
void WalkGroups(const CgroupFiles& files, std::string group, MemoryInfo& info) {
  while (true) {
    const std::string folder = files.mount + (group == "/" ? "" : group) + "/";
    // cgroup v1 writes "no limit" as a number near 2^63.
    const auto limit = ReadInt(folder + files.limit);
    if (limit && *limit < (int64_t{1} << 60) && (info.cgroup_limit == 0 || *limit < info.cgroup_limit)) {
      info.cgroup_limit = *limit;
      info.cgroup_used = ReadInt(folder + files.used).value_or(0);
      if (const auto stat = ReadFile(folder + files.stat, kSmallFile)) {
        info.cgroup_used -= FindKey(*stat, files.cache_key).value_or(0);
      }
      info.cgroup_used = std::max<int64_t>(info.cgroup_used, 0);
      info.limited_by = folder + files.limit;
    }
    if (group.size() <= 1) return;
    group.resize(std::max<size_t>(group.rfind('/'), 1));
  }
}

}  // namespace

int64_t MemoryInfo::available() const {
  if (cgroup_limit == 0) return host_available;
  return std::clamp<int64_t>(cgroup_limit - cgroup_used, 0, host_available);
}

Result<MemoryInfo> ReadMemoryInfo(const std::string& root) {
  CADRE_ASSIGN(const std::string meminfo, ReadFile(root + "/proc/meminfo", kSmallFile));
  MemoryInfo info;
  const auto total = FindKey(meminfo, "MemTotal");
  if (!total) return Fail(Code::kUnavailable, "{}/proc/meminfo has no MemTotal line", root);
  info.host_total = *total * 1024;
  info.host_available = FindKey(meminfo, "MemAvailable").value_or(*total) * 1024;
  info.limited_by = "the host";
  const auto groups = ReadFile(root + "/proc/self/cgroup", kSmallFile);
  if (!groups) return info;  // a kernel without control groups
  for (const std::string_view line : Lines(*groups)) {
    // hierarchy-id:controllers:path
    const size_t first = line.find(':');
    const size_t second = first == std::string_view::npos ? first : line.find(':', first + 1);
    if (second == std::string_view::npos) continue;
    const std::string_view controllers = line.substr(first + 1, second - first - 1);
    const std::string group(line.substr(second + 1));
    if (!group.starts_with('/')) continue;
    if (controllers.empty()) {
      WalkGroups({root + "/sys/fs/cgroup", "memory.max", "memory.current", "memory.stat", "inactive_file"},
                 group, info);
    } else if (controllers.find("memory") != std::string_view::npos) {
      WalkGroups({root + "/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
                  "memory.stat", "total_inactive_file"},
                 group, info);
    }
  }
  return info;
}

void Region::Reset() {
  if (data_ != nullptr) munmap(data_, bytes_);
  data_ = nullptr;
  bytes_ = 0;
}

Result<Region> AllocateRegion(size_t bytes, const RegionOptions& options) {
  if (bytes == 0) return Region();
  const bool huge = options.huge_pages && bytes >= kHugePage;
  const size_t unit = huge ? kHugePage : size_t{4096};
  if (bytes > std::numeric_limits<size_t>::max() / 4) {
    return Fail(Code::kResourceExhausted, "cannot allocate {} bytes of memory", bytes);
  }
  const size_t rounded = (bytes + unit - 1) / unit * unit;
  const size_t slack = huge ? kHugePage : 0;  // cut off again below, so that huge pages fit
  void* mapped = mmap(nullptr, rounded + slack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) {
    return Fail(Code::kResourceExhausted, "cannot allocate {} of memory: {}",
                FormatBytes(static_cast<int64_t>(rounded)), ErrnoText(errno));
  }
  auto* start = static_cast<std::byte*>(mapped);
  if (huge) {
    auto* aligned = reinterpret_cast<std::byte*>((reinterpret_cast<uintptr_t>(start) + kHugePage - 1) /
                                                 kHugePage * kHugePage);
    const auto before = static_cast<size_t>(aligned - start);
    if (before > 0) munmap(start, before);
    if (before < slack) munmap(aligned + rounded, slack - before);
    start = aligned;
    madvise(start, rounded, MADV_HUGEPAGE);  // a wish; refused where the system has none
  }
  Region region(start, rounded);
  if (options.pool != nullptr) TouchPages(start, rounded, options.pool);
  return region;
}

void TouchPages(std::byte* data, size_t bytes, ThreadPool* pool) {
  const auto touch = [&](size_t begin, size_t end) {
    for (size_t at = begin; at < end; at += 4096) {
      auto* byte = reinterpret_cast<volatile std::byte*>(data + at);
      *byte = *byte;
    }
  };
  if (pool == nullptr) return touch(0, bytes);
  const auto pieces = static_cast<int64_t>((bytes + kHugePage - 1) / kHugePage);
  pool->ForEach(pieces, [&](int64_t piece, int) {
    const size_t begin = static_cast<size_t>(piece) * kHugePage;
    touch(begin, std::min(begin + kHugePage, bytes));
  });
}

std::string FormatBytes(int64_t bytes) {
  const auto b = static_cast<double>(bytes);
  if (bytes >= int64_t{1} << 30) return Format("{:.1f} GiB", b / (1 << 30));
  if (bytes >= int64_t{10} << 20) return Format("{:.0f} MiB", b / (1 << 20));
  if (bytes >= 1 << 20) return Format("{:.1f} MiB", b / (1 << 20));
  if (bytes >= 1 << 10) return Format("{:.0f} KiB", b / (1 << 10));
  return Format("{} bytes", bytes);
}

}  // namespace cadre::sys
