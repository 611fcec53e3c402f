#include "route/held_prefixes.h"

#include <algorithm>

#include "base/format.h"

namespace cadre::route {
namespace {

constexpr size_t kMaxNoted = 1 << 16;
constexpr int64_t kNamesAtOnce = 1 << 14;
constexpr int64_t kMaxBlock = 1 << 20, kMaxRanks = 65536;

Result<std::vector<uint64_t>> Names(const Json& body, const char* member) {
  const Json* text = body.Find(member);
  if (text == nullptr || !text->is_string() || text->AsString().size() % 16 != 0)
    return Fail(Code::kDataLoss, "{} must be a string of 16 digits a name", member);
  std::vector<uint64_t> names;
  names.reserve(text->AsString().size() / 16);
  uint64_t name = 0;
  size_t digits = 0;
  for (const char c : text->AsString()) {
    const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
    if (digit < 0) return Fail(Code::kDataLoss, "{} must have hexadecimal digits", member);
    name = name << 4 | static_cast<uint64_t>(digit);
    if (++digits % 16 == 0) names.push_back(name);
  }
  return names;
}

Result<int64_t> Number(const Json& body, const char* member, int64_t least, int64_t most) {
  const Json* value = body.Find(member);
  if (value == nullptr || !value->is_int() || value->AsInt() < least || value->AsInt() > most)
    return Fail(Code::kDataLoss, "{} must be a number from {} to {}", member, least, most);
  return value->AsInt();
}

Result<bool> Flag(const Json& body, const char* member) {
  const Json* value = body.Find(member);
  if (value == nullptr || !value->is_bool()) return Fail(Code::kDataLoss, "{} must be true or false", member);
  return value->AsBool();
}

}  // namespace

struct HeldPrefixes::Answer {
  uint64_t epoch = 0;
  int64_t version = 0, base = 0, block_size = 0, num_ranks = 1;
  bool reset = false, more = false, caches = true;
  std::vector<uint64_t> removed, added;
};

Result<HeldPrefixes::Answer> HeldPrefixes::Parse(std::string_view text) {
  CADRE_ASSIGN(const Json body, Json::Parse(text));
  if (!body.is_object()) return Fail(Code::kDataLoss, "the answer is no JSON object");
  const Json *names = body.Find("names"), *epoch = body.Find("epoch");
  if (names == nullptr || !names->is_string() || names->AsString() != "cadre-1")
    return Fail(Code::kUnsupported, "its names are not of the kind cadre-1");
  Answer out;
  if (epoch == nullptr || !epoch->is_string() || epoch->AsString().size() != 16)
    return Fail(Code::kDataLoss, "epoch must have 16 hexadecimal digits");
  CADRE_ASSIGN(const std::vector<uint64_t> one, Names(body, "epoch"));
  out.epoch = one.front();
  CADRE_ASSIGN(out.version, Number(body, "version", 0, INT64_MAX));
  CADRE_ASSIGN(out.base, Number(body, "base", 0, INT64_MAX));
  CADRE_ASSIGN(out.block_size, Number(body, "block_size", 1, kMaxBlock));
  CADRE_ASSIGN(out.num_ranks, Number(body, "num_ranks", 1, kMaxRanks));
  CADRE_ASSIGN(out.reset, Flag(body, "reset"));
  CADRE_ASSIGN(out.more, Flag(body, "more"));
  CADRE_ASSIGN(out.caches, Flag(body, "prefix_caching"));
  CADRE_ASSIGN(out.removed, Names(body, "removed"));
  CADRE_ASSIGN(out.added, Names(body, "added"));
  if (out.more && out.removed.empty() && out.added.empty())
    return Fail(Code::kDataLoss, "more without any name");
  return out;
}

std::string HeldPrefixes::NextQuery(int rank) {
  const std::lock_guard lock(mutex_);
  ++asked_;
  return Format("rank={}&epoch={:x}&since={}&base={}&limit={}", rank, epoch_, version_, base_, kNamesAtOnce);
}

Result<HeldPrefixes::Heard> HeldPrefixes::Take(std::string_view body) {
  auto answer = Parse(body);
  if (!answer) {
    Forget();
    return std::unexpected(std::move(answer).error());
  }
  const std::lock_guard lock(mutex_);
  if (answer->reset) {
    held_.clear();
    whole_ = too_many_ = false;
  }
  for (const uint64_t name : answer->removed) held_.erase(name);
  if (held_.size() + answer->added.size() > kMaxNames) too_many_ = true;
  if (!too_many_) held_.insert(answer->added.begin(), answer->added.end());
  if (too_many_) held_.clear();
  epoch_ = answer->epoch;
  version_ = answer->version;
  base_ = answer->base;
  caches_ = answer->caches;
  block_size_ = static_cast<int32_t>(answer->block_size);
  whole_ |= !answer->more;
  if (!answer->more) std::erase_if(noted_, [&](const auto& noted) { return noted.second < asked_; });
  return Heard{.more = answer->more && !too_many_,
               .changed = answer->reset || !answer->removed.empty() || !answer->added.empty(),
               .num_ranks = static_cast<int>(answer->num_ranks)};
}

void HeldPrefixes::Note(std::span<const uint64_t> names) {
  const std::lock_guard lock(mutex_);
  if (!caches_) return;
  for (const uint64_t name : names) {
    if (noted_.size() >= kMaxNoted) return;
    noted_[name] = asked_;
  }
}

void HeldPrefixes::Promise(std::span<const uint64_t> names) {
  const std::lock_guard lock(mutex_);
  for (const uint64_t name : names) ++promised_[name];
}

void HeldPrefixes::Settle(std::span<const uint64_t> names, bool kept) {
  {
    const std::lock_guard lock(mutex_);
    for (const uint64_t name : names) {
      const auto it = promised_.find(name);
      if (it != promised_.end() && --it->second == 0) promised_.erase(it);
    }
  }
  if (kept) Note(names);
}

void HeldPrefixes::Forget() {
  const std::lock_guard lock(mutex_);
  held_.clear();
  noted_.clear();
  epoch_ = 0;
  version_ = base_ = 0;
  whole_ = too_many_ = false;
}

int32_t HeldPrefixes::block_size() const {
  const std::lock_guard lock(mutex_);
  return block_size_;
}

int64_t HeldPrefixes::Match(std::span<const uint64_t> names) const {
  const std::lock_guard lock(mutex_);
  if (!whole_ || too_many_) return -1;
  const auto is_there = [&](uint64_t name) {
    return held_.contains(name) || noted_.contains(name) || (caches_ && promised_.contains(name));
  };
  const auto missing = std::ranges::find_if_not(names, is_there);
  return missing - names.begin();
}

size_t HeldPrefixes::size() const {
  const std::lock_guard lock(mutex_);
  return held_.size();
}

}  // namespace cadre::route
