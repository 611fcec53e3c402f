#pragma once
// Memory of the host and of the control group, and large buffers that are allocated once.
// Page faults are very dear on virtual machines, so a buffer that every step uses is taken at start, touched
// at start and kept.
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include "base/error.h"

namespace cadre::sys {

class ThreadPool;

struct MemoryInfo {
  int64_t host_total = 0;      ///< bytes of RAM
  int64_t host_available = 0;  ///< MemAvailable: free, or page cache that can be dropped
  int64_t cgroup_limit = 0;    ///< the tightest limit of the control groups around this process; 0: none
  int64_t cgroup_used = 0;     ///< bytes charged to that group, page cache that can be dropped left out
  std::string limited_by;      ///< "the host" or the file that holds the limit, for messages

  /// What this process and its children may use in all: the host's memory or the limit.
  int64_t total() const { return cgroup_limit > 0 && cgroup_limit < host_total ? cgroup_limit : host_total; }
  /// What is still free under both.
  int64_t available() const;
};

/// Reads /proc/meminfo and the memory controllers (cgroup v1 and v2, every parent group included).
/// `root` stands before each path ("" in use; a folder in tests). Errors: kUnavailable if meminfo cannot be
/// read.
Result<MemoryInfo> ReadMemoryInfo(const std::string& root = "");

/// A mapping that is unmapped at the end of its life. Movable. Zero-filled when new.
class Region {
 public:
  Region() = default;
  Region(std::byte* data, size_t bytes) : data_(data), bytes_(bytes) {}
  ~Region() { Reset(); }
  Region(Region&& other) noexcept { *this = std::move(other); }
  Region& operator=(Region&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;

  std::byte* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  std::span<std::byte> span() const { return {data_, bytes_}; }
  explicit operator bool() const { return data_ != nullptr; }
  void Reset();

 private:
  std::byte* data_ = nullptr;
  size_t bytes_ = 0;
};

struct RegionOptions {
  bool huge_pages = true;      ///< ask for huge pages where the system gives them (2 MiB and more only)
  ThreadPool* pool = nullptr;  ///< touch every page now, on these threads; null: on first use
};

/// Private memory of this process, aligned to at least a page (2 MiB where it is that large).
/// Errors: kResourceExhausted with the size wanted.
Result<Region> AllocateRegion(size_t bytes, const RegionOptions& options = {});

/// Faults every page of [data, data + bytes) in, shared out over the pool (null: the caller alone).
void TouchPages(std::byte* data, size_t bytes, ThreadPool* pool);

/// "1.5 GiB", "312 MiB", "17 KiB", "5 bytes".
std::string FormatBytes(int64_t bytes);

}  // namespace cadre::sys
