#include "group/join.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <string_view>

#include "base/format.h"

namespace cadre::group {
namespace {

void Append(std::string& blob, std::string_view text) {
  const auto n = static_cast<uint32_t>(text.size());
  blob.append(reinterpret_cast<const char*>(&n), sizeof(n));
  blob.append(text);
}

std::string Encode(const std::vector<ConfigField>& fields) {
  std::string blob;
  for (const ConfigField& field : fields) {
    Append(blob, field.name);
    Append(blob, field.value);
  }
  return blob;
}

std::optional<std::string> Take(std::string_view& blob) {
  uint32_t n = 0;
  if (blob.size() < sizeof(n)) return std::nullopt;
  std::memcpy(&n, blob.data(), sizeof(n));
  blob.remove_prefix(sizeof(n));
  if (blob.size() < n) return std::nullopt;
  std::string text(blob.substr(0, n));
  blob.remove_prefix(n);
  return text;
}

std::vector<ConfigField> Decode(std::string_view blob) {
  std::vector<ConfigField> fields;
  while (!blob.empty()) {
    auto name = Take(blob);
    auto value = Take(blob);
    if (!name || !value) break;
    fields.push_back({std::move(*name), std::move(*value)});
  }
  return fields;
}

const std::string* Find(const std::vector<ConfigField>& fields, const std::string& name) {
  const auto at = std::ranges::find(fields, name, &ConfigField::name);
  return at == fields.end() ? nullptr : &at->value;
}

std::string Show(const std::string* value) {
  return value == nullptr ? "no value" : Format("'{}'", *value);
}

// The first name, in the first rank's order and then the others', whose values differ.
std::optional<std::string> FirstDifference(const std::vector<std::vector<ConfigField>>& all) {
  for (const auto& names : all) {
    for (const ConfigField& field : names) {
      for (const auto& other : all) {
        const std::string* value = Find(other, field.name);
        if (value == nullptr || *value != field.value) return field.name;
      }
    }
  }
  return std::nullopt;
}

}  // namespace

uint64_t ConfigHash(const std::vector<ConfigField>& fields) {
  uint64_t hash = 0xCBF29CE484222325;  // FNV-1a, 64 bit
  for (const char c : Encode(fields)) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3;
  return hash;
}

std::optional<ConfigDifference> CompareConfig(const std::string& who_a, const std::vector<ConfigField>& a,
                                              const std::string& who_b, const std::vector<ConfigField>& b) {
  const auto name = FirstDifference({a, b});
  if (!name) return std::nullopt;
  return ConfigDifference{
      *name,
      Format("the hosts were not started alike: {} has {} = {}, {} has {}; start all with the same value",
             who_b, *name, Show(Find(b, *name)), who_a, Show(Find(a, *name)))};
}

Status CheckSameConfig(fabric::Rendezvous& rendezvous, const std::vector<int>& ranks,
                       const std::vector<ConfigField>& fields, TimePoint deadline) {
  CADRE_ASSIGN(const auto blobs, rendezvous.ExchangeBlobs("config", ranks, Encode(fields), deadline));
  std::vector<std::vector<ConfigField>> all;
  for (const std::string& blob : blobs) all.push_back(Decode(blob));
  const auto name = FirstDifference(all);
  if (!name) return {};
  const auto world = [&](size_t i) { return ranks.empty() ? static_cast<int>(i) : ranks[i]; };
  const std::string first = Show(Find(all[0], *name));
  std::string other;
  std::vector<int> with_other;
  for (size_t r = 1; r < all.size(); ++r) {
    const std::string value = Show(Find(all[r], *name));
    if (value == first || (!other.empty() && value != other)) continue;
    other = value;
    with_other.push_back(world(r));
  }
  return FailParam(
      Code::kInvalidArgument, *name,
      "the ranks were not started alike: {} {} {} = {}, rank {} has {}; start all with the same value",
      fabric::NameRanks(with_other), with_other.size() == 1 ? "has" : "have", *name, other, world(0), first);
}

}  // namespace cadre::group
