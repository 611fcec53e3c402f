#pragma once
// Scratch memory of a step: taken from one mapping, given back by rewinding. Page faults are dear on virtual
// machines, so the mapping is made once, large enough for the largest step, and only what is used is ever
// touched.
#include <cstddef>
#include <cstdint>

#include "sys/memory.h"

namespace cadre {

class Arena {
 public:
  /// Reserves address space for `bytes`; pages come when they are touched.
  explicit Arena(int64_t bytes);

  /// `count` elements, 64-byte aligned, contents undefined. The arena must have room (checked).
  template <typename T>
  T* Take(int64_t count) {
    return static_cast<T*>(TakeBytes(count * static_cast<int64_t>(sizeof(T))));
  }
  void* TakeBytes(int64_t bytes);

  int64_t used() const { return used_; }
  int64_t size() const { return static_cast<int64_t>(region_.bytes()); }
  void Rewind(int64_t used) { used_ = used; }

 private:
  sys::Region region_;
  int64_t used_ = 0;
};

/// Gives back on leaving the scope everything that was taken inside it.
class ArenaScope {
 public:
  explicit ArenaScope(Arena& arena) : arena_(arena), used_(arena.used()) {}
  ~ArenaScope() { arena_.Rewind(used_); }
  ArenaScope(const ArenaScope&) = delete;
  ArenaScope& operator=(const ArenaScope&) = delete;

 private:
  Arena& arena_;
  int64_t used_;
};

}  // namespace cadre
