#pragma once
// The model's vocabulary: token text <-> id. Ids may have holes; two texts may share an id (the later one is
// shown).
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace cadre::text {

class Vocab {
 public:
  /// Ids at or above this are refused by those who read files: tables are indexed by id.
  static constexpr int64_t kMaxId = int64_t{1} << 22;

  /// Room for `count` tokens of `bytes` in all; to be called once, before Add.
  void Reserve(size_t count, size_t bytes);
  /// Adds a token; a text that is there already gets the new id.
  void Add(std::string_view token, int32_t id);

  /// The id of a token, or -1.
  int32_t Find(std::string_view token) const;
  /// The text of an id; empty if no token has it (see Has).
  std::string_view Text(int32_t id) const;
  bool Has(int32_t id) const;
  /// Number of different texts.
  size_t size() const { return entries_.size(); }
  /// One more than the greatest id.
  int32_t id_end() const { return static_cast<int32_t>(by_id_.size()); }

 private:
  struct Entry {
    uint32_t begin, length;
    int32_t id;
    uint32_t hash;
  };
  std::string_view TextOf(const Entry& entry) const {
    return std::string_view(bytes_).substr(entry.begin, entry.length);
  }
  void Rehash(size_t slots);

  std::string bytes_;
  std::vector<Entry> entries_;
  std::vector<uint32_t> slots_;  // open addressing: index of an entry + 1, or 0
  std::vector<uint32_t> by_id_;  // index of an entry + 1, or 0
};

/// A quick hash of bytes, for tables in memory only (the value may change between builds).
uint64_t HashBytes(std::string_view bytes);

}  // namespace cadre::text
