#include "sys/memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <optional>

#include "base/format.h"
#include "sys/cgroup.h"
#include "sys/files.h"
#include "sys/threads.h"

namespace cadre::sys {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kSmallFile = 1 << 20;

std::optional<int64_t> ReadInt(const std::string& path) {
  const auto text = ReadFile(path, kSmallFile);
  return text ? LeadingInt(*text) : std::nullopt;
}

// Walks from the process's group up to the mount and takes the tightest limit.
void TakeTightestLimit(const CgroupFolders& groups, MemoryInfo& info) {
  for (const std::string& folder : groups.folders) {
    const std::string limit_file = folder + (groups.v2 ? "memory.max" : "memory.limit_in_bytes");
    const auto limit = ReadInt(limit_file);
    // cgroup v1 writes "no limit" as a number near 2^63.
    if (!limit || *limit >= int64_t{1} << 60 || (info.cgroup_limit != 0 && *limit >= info.cgroup_limit))
      continue;
    int64_t used = ReadInt(folder + (groups.v2 ? "memory.current" : "memory.usage_in_bytes")).value_or(0);
    if (const auto stat = ReadFile(folder + "memory.stat", kSmallFile)) {
      used -= FindKey(*stat, groups.v2 ? "inactive_file" : "total_inactive_file").value_or(0);
    }
    info.cgroup_limit = *limit;
    info.cgroup_used = std::max<int64_t>(used, 0);
    info.limited_by = limit_file;
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
  for (const CgroupFolders& groups : FindCgroups("memory", root)) TakeTightestLimit(groups, info);
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
