#pragma once
// Remembers the ids of short words that were met before: text repeats its words, and a look-up is ten times
// cheaper than the merges. Direct-mapped and of fixed size (one slot a cache line), so it needs no eviction
// and no lock: it belongs to one Encode at a time. What it answers is what the model would.
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

#include "text/vocab.h"

namespace cadre::text {

class WordCache {
 public:
  static constexpr size_t kMaxWordBytes = 34;
  static constexpr size_t kMaxIds = 6;

  /// The slot in which `word` is or would be; nullptr if it is too long to be kept.
  struct Slot {
    uint32_t hash = 0;
    uint8_t length = 0;
    uint8_t num_ids = 0;  // 0: the slot is free
    char word[kMaxWordBytes];
    int32_t ids[kMaxIds];
  };
  Slot* Find(std::string_view word, bool& hit) {
    hit = false;
    if (word.size() > kMaxWordBytes) return nullptr;
    if (slots_.empty()) slots_.resize(kSlots);
    const uint64_t hash = HashBytes(word);
    Slot& slot = slots_[hash % kSlots];
    const auto tag = static_cast<uint32_t>(hash >> 32);
    hit = slot.num_ids > 0 && slot.hash == tag && slot.length == word.size() &&
          std::memcmp(slot.word, word.data(), word.size()) == 0;
    if (!hit) wanted_ = tag;
    return &slot;
  }
  /// Puts `word` into the slot that the last Find returned for it.
  void Store(Slot& slot, std::string_view word, std::span<const int32_t> ids) const {
    if (ids.empty() || ids.size() > kMaxIds) return;
    slot.hash = wanted_;
    slot.length = static_cast<uint8_t>(word.size());
    slot.num_ids = static_cast<uint8_t>(ids.size());
    std::memcpy(slot.word, word.data(), word.size());
    std::memcpy(slot.ids, ids.data(), ids.size() * sizeof(int32_t));
  }

 private:
  static constexpr size_t kSlots = 1 << 15;  // 2 MiB
  static_assert(sizeof(Slot) == 64);
  std::vector<Slot> slots_;
  uint32_t wanted_ = 0;
};

}  // namespace cadre::text
