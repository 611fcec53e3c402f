#include "tensor/arena.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace cadre {
namespace {

size_t MappedBytes(int64_t num_bytes) {
  return static_cast<size_t>(std::max<int64_t>(num_bytes, 1));
}

}  // namespace

Arena::Arena(Arena&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

Arena& Arena::operator=(Arena&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

Arena::~Arena() {
  if (data_) munmap(data_, MappedBytes(size_));
}

Result<Arena> Arena::Allocate(int64_t num_bytes) {
  void* place =
      mmap(nullptr, MappedBytes(num_bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (place == MAP_FAILED) {
    return Fail(Code::kResourceExhausted, "cannot get {} bytes of memory: {}", num_bytes, strerror(errno));
  }
  // Refused where the kernel has no huge pages: small ones do.
  madvise(place, MappedBytes(num_bytes), MADV_HUGEPAGE);
  Arena arena;
  arena.data_ = static_cast<std::byte*>(place);
  arena.size_ = num_bytes;
  return arena;
}

}  // namespace cadre
