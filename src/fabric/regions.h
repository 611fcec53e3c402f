#pragma once
// The parts of a segment. One table gives sizes and offsets alike, so that what is allocated, what is planned
// and where things are read cannot disagree.
#include <cstddef>
#include <vector>

namespace cadre::fabric {

class Regions {
 public:
  Regions() = default;
  /// Leaves `gap_bytes` (a multiple of 64) behind each part; a test fills them and looks whether they hold.
  explicit Regions(size_t gap_bytes) : gap_bytes_(gap_bytes) {}

  /// Adds a part of `bytes`, 64-byte aligned (a cache line of its own), and returns its offset.
  size_t Add(size_t bytes) {
    const size_t offset = total_;
    total_ += (bytes + 63) / 64 * 64;
    if (gap_bytes_ > 0) gaps_.push_back(total_);
    total_ += gap_bytes_;
    return offset;
  }
  /// Offsets of the gaps.
  const std::vector<size_t>& gaps() const { return gaps_; }
  size_t gap_bytes() const { return gap_bytes_; }
  /// Bytes of the whole segment.
  size_t total() const { return total_; }

 private:
  size_t total_ = 0, gap_bytes_ = 0;
  std::vector<size_t> gaps_;
};

}  // namespace cadre::fabric
