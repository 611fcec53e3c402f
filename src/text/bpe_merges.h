#pragma once
// The merges of a BPE model: which neighbours become one token, and in which order. The pair of the lowest
// rank goes first; of equal pairs the leftmost. Short words look for it by a scan, long ones with a heap: a
// megabyte of one letter must not cost its square. Both give the same answer; MergeByScan is the slow twin
// that tests hold against it.
#include <cstdint>
#include <vector>

#include "text/model.h"

namespace cadre::text {

class BpeMerges {
 public:
  static constexpr uint32_t kNoRank = UINT32_MAX;

  void Reserve(size_t count);
  /// Adds the next merge (its rank is the number of those before it); a pair that was there gets the new
  /// rank.
  void Add(int32_t left, int32_t right, int32_t merged);

  /// Merges the symbols in scratch.ids in place. Cost: n log n.
  void Merge(Scratch& scratch) const;
  void MergeByScan(Scratch& scratch) const;
  void MergeByHeap(Scratch& scratch) const;

 private:
  struct Slot {
    uint64_t pair = kFree;
    uint32_t rank = kNoRank;
  };
  static constexpr uint64_t kFree = UINT64_MAX;

  static uint64_t PairOf(int32_t left, int32_t right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }
  size_t SlotOf(uint64_t pair) const {
    const uint64_t hash = pair * 0x9E3779B97F4A7C15u;
    return (hash >> 32 ^ hash) & (slots_.size() - 1);
  }
  uint32_t Rank(int32_t left, int32_t right) const {
    const uint64_t pair = PairOf(left, right);
    for (size_t slot = SlotOf(pair);; slot = (slot + 1) & (slots_.size() - 1)) {
      if (slots_[slot].pair == pair) return slots_[slot].rank;
      if (slots_[slot].pair == kFree) return kNoRank;
    }
  }

  std::vector<Slot> slots_;      // at most half full
  std::vector<int32_t> merged_;  // by rank
};

}  // namespace cadre::text
