#include "text/vocab.h"

#include <bit>
#include <cstring>

namespace cadre::text {

uint64_t HashBytes(std::string_view bytes) {
  // Multiply and rotate over eight bytes at a time; the constants are odd and have about half their bits set.
  constexpr uint64_t kMul = 0x9E3779B97F4A7C15u;
  uint64_t hash = bytes.size() * kMul;
  const char* p = bytes.data();
  size_t left = bytes.size();
  for (; left >= 8; p += 8, left -= 8) {
    uint64_t word;
    std::memcpy(&word, p, 8);
    hash = (std::rotl(hash, 5) ^ word) * kMul;
  }
  uint64_t tail = 0;
  if (left > 0) std::memcpy(&tail, p, left);
  hash = (std::rotl(hash, 5) ^ tail) * kMul;
  return hash ^ hash >> 32;
}

void Vocab::Reserve(size_t count, size_t bytes) {
  bytes_.reserve(bytes);
  entries_.reserve(count);
  by_id_.reserve(count + 64);
  Rehash(std::bit_ceil(count * 2 + 16));
}

void Vocab::Rehash(size_t slots) {
  slots_.assign(slots, 0);
  for (size_t i = 0; i < entries_.size(); ++i) {
    size_t slot = entries_[i].hash & (slots - 1);
    while (slots_[slot] != 0) slot = (slot + 1) & (slots - 1);
    slots_[slot] = static_cast<uint32_t>(i + 1);
  }
}

void Vocab::Add(std::string_view token, int32_t id) {
  if (entries_.size() * 2 >= slots_.size()) Rehash(std::bit_ceil(entries_.size() * 4 + 16));
  const auto hash = static_cast<uint32_t>(HashBytes(token));
  size_t slot = hash & (slots_.size() - 1);
  while (slots_[slot] != 0) {
    const Entry& entry = entries_[slots_[slot] - 1];
    if (entry.hash == hash && TextOf(entry) == token) break;
    slot = (slot + 1) & (slots_.size() - 1);
  }
  if (slots_[slot] == 0) {
    entries_.push_back({static_cast<uint32_t>(bytes_.size()), static_cast<uint32_t>(token.size()), id, hash});
    bytes_ += token;
    slots_[slot] = static_cast<uint32_t>(entries_.size());
  } else {
    entries_[slots_[slot] - 1].id = id;
  }
  if (by_id_.size() <= static_cast<size_t>(id)) by_id_.resize(static_cast<size_t>(id) + 1, 0);
  by_id_[static_cast<size_t>(id)] = slots_[slot];
}

int32_t Vocab::Find(std::string_view token) const {
  if (slots_.empty()) return -1;
  const auto hash = static_cast<uint32_t>(HashBytes(token));
  for (size_t slot = hash & (slots_.size() - 1); slots_[slot] != 0; slot = (slot + 1) & (slots_.size() - 1)) {
    const Entry& entry = entries_[slots_[slot] - 1];
    if (entry.hash == hash && TextOf(entry) == token) return entry.id;
  }
  return -1;
}

bool Vocab::Has(int32_t id) const {
  return id >= 0 && static_cast<size_t>(id) < by_id_.size() && by_id_[static_cast<size_t>(id)] != 0;
}

std::string_view Vocab::Text(int32_t id) const {
  return Has(id) ? TextOf(entries_[by_id_[static_cast<size_t>(id)] - 1]) : std::string_view();
}

}  // namespace cadre::text
