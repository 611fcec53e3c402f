#pragma once
// One large piece of zeroed memory, taken once and given back whole: page faults are dear, so nothing inside
// is freed.
#include <cstddef>
#include <cstdint>

#include "base/error.h"

namespace cadre {

/// Move-only. Pages are touched by whoever writes them first, in huge pages where the system gives them.
class Arena {
 public:
  Arena() = default;
  Arena(Arena&& other) noexcept;
  Arena& operator=(Arena&& other) noexcept;
  ~Arena();

  /// Errors: kResourceExhausted with the size wanted. num_bytes may be 0.
  static Result<Arena> Allocate(int64_t num_bytes);

  std::byte* data() const { return data_; }  ///< page-aligned; not null, even for 0 bytes
  int64_t size() const { return size_; }

 private:
  std::byte* data_ = nullptr;
  int64_t size_ = 0;
};

}  // namespace cadre
