#include "tensor/arena.h"

#include <sys/mman.h>

#include "base/check.h"

namespace cadre {
namespace {

constexpr int64_t kAlignment = 64;  // a cache line, and the widest vector

}  // namespace

Arena::Arena(int64_t bytes) : size_((bytes + kAlignment - 1) / kAlignment * kAlignment) {
  if (size_ == 0) return;
  void* p = mmap(nullptr, static_cast<size_t>(size_), PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  CADRE_CHECK(p != MAP_FAILED);
  madvise(p, static_cast<size_t>(size_), MADV_HUGEPAGE);  // best effort
  base_ = static_cast<std::byte*>(p);
}

Arena::~Arena() {
  if (base_ != nullptr) munmap(base_, static_cast<size_t>(size_));
}

void* Arena::TakeBytes(int64_t bytes) {
  const int64_t begin = used_;
  used_ += (bytes + kAlignment - 1) / kAlignment * kAlignment;
  CADRE_CHECK(used_ <= size_);
  return base_ + begin;
}

}  // namespace cadre
