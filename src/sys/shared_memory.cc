#include "sys/shared_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>

#include "sys/files.h"

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

namespace cadre::sys {

Result<Segment> CreateSegment(const std::string& name, size_t bytes, bool seal_writes) {
  const auto fail = [&](const char* what) {
    return Fail(Code::kResourceExhausted, "cannot {} a shared-memory segment '{}' of {}: {}", what, name,
                FormatBytes(static_cast<int64_t>(bytes)), ErrnoText(errno));
  };
  bytes = std::max<size_t>((bytes + 4095) / 4096 * 4096, 4096);
  Segment segment;
  segment.fd = Fd(memfd_create(name.substr(0, 200).c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!segment.fd) return fail("make");
  if (ftruncate(segment.fd.get(), static_cast<off_t>(bytes)) != 0) return fail("size");
  void* mapped = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, segment.fd.get(), 0);
  if (mapped == MAP_FAILED) return fail("map");
  segment.region = Region(static_cast<std::byte*>(mapped), bytes);
  if (bytes >= size_t{2} << 20) madvise(mapped, bytes, MADV_HUGEPAGE);  // a wish
  // A segment that shrank under its readers would kill them with SIGBUS, so its size is sealed.
  const int seals = F_SEAL_SHRINK | F_SEAL_GROW | (seal_writes ? F_SEAL_FUTURE_WRITE : 0);
  if (fcntl(segment.fd.get(), F_ADD_SEALS, seals) != 0) return fail("seal");
  return segment;
}

Result<Region> MapSegment(int fd, size_t bytes, Access access) {
  struct stat info;
  if (fstat(fd, &info) != 0) {
    return Fail(Code::kUnavailable, "cannot ask a shared segment for its size: {}", ErrnoText(errno));
  }
  if (info.st_size < static_cast<off_t>(bytes)) {
    return Fail(Code::kDataLoss, "a shared segment has {} bytes; {} were expected", info.st_size, bytes);
  }
  const int protection = access == Access::kRead ? PROT_READ : PROT_READ | PROT_WRITE;
  void* mapped = mmap(nullptr, bytes, protection, MAP_SHARED, fd, 0);
  if (mapped == MAP_FAILED) {
    return Fail(Code::kUnavailable, "cannot map a shared segment of {}: {}",
                FormatBytes(static_cast<int64_t>(bytes)), ErrnoText(errno));
  }
  if (bytes >= size_t{2} << 20) madvise(mapped, bytes, MADV_HUGEPAGE);
  return Region(static_cast<std::byte*>(mapped), bytes);
}

}  // namespace cadre::sys
