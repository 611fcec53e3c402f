#pragma once
// The parts of a segment. One table gives sizes and offsets alike, so that what is allocated, what is planned
// and where things are read cannot disagree.
#include <cstddef>

namespace cadre::fabric {

class Regions {
 public:
  /// Adds a part of `bytes`, 64-byte aligned (a cache line of its own), and returns its offset.
  size_t Add(size_t bytes) {
    const size_t offset = total_;
    total_ += (bytes + 63) / 64 * 64;
    return offset;
  }
  /// Bytes of the whole segment.
  size_t total() const { return total_; }

 private:
  size_t total_ = 0;
};

}  // namespace cadre::fabric
