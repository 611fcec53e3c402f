#pragma once
// FNV-1a, 64 bits: what ranks compare to see that they planned the same.
#include <cstdint>
#include <span>

namespace cadre::eplb {

class Fnv {
 public:
  void Add(int64_t value) {
    for (int byte = 0; byte < 8; ++byte) {
      hash_ ^= (static_cast<uint64_t>(value) >> (8 * byte)) & 0xff;
      hash_ *= 0x100000001b3;  // the FNV prime
    }
  }
  void Add(std::span<const int32_t> values) {
    Add(static_cast<int64_t>(values.size()));
    for (const int32_t value : values) Add(int64_t{value});
  }
  uint64_t value() const { return hash_; }

 private:
  uint64_t hash_ = 0xcbf29ce484222325;  // the FNV offset basis
};

}  // namespace cadre::eplb
