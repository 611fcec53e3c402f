#include "tensor/arena.h"

#include "base/check.h"

namespace cadre {
namespace {

constexpr int64_t kAlignment = 64;  // a cache line, and the widest vector

constexpr int64_t Align(int64_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

}  // namespace

Arena::Arena(int64_t bytes) {
  auto region = sys::AllocateRegion(static_cast<size_t>(Align(bytes)));
  CADRE_CHECK(region.has_value());  // address space only; the memory plan has counted what will be touched
  region_ = std::move(*region);
}

void* Arena::TakeBytes(int64_t bytes) {
  const int64_t begin = used_;
  used_ += Align(bytes);
  CADRE_CHECK(used_ <= size());
  return region_.data() + begin;
}

}  // namespace cadre
