#include "checkpoint/shard_index.h"

#include <algorithm>
#include <map>

#include "base/json.h"

namespace cadre::checkpoint {

Result<ShardIndex> ParseShardIndex(std::string_view text, const std::string& where) {
  // Bounds the work: an entry costs a hundred bytes and more once parsed.
  constexpr int64_t kMaxEntries = 4'000'000;
  if (std::count(text.begin(), text.end(), ',') > kMaxEntries) {
    return Fail(Code::kDataLoss, "{}: more than {} entries", where, kMaxEntries);
  }
  auto json = Json::Parse(text, 8);
  if (!json) return Fail(Code::kDataLoss, "{}: {}", where, json.error().message);
  const Json* map = json->Find("weight_map");
  if (!map || !map->is_object()) {
    return Fail(Code::kDataLoss, "{}: wanted an object 'weight_map' (tensor: file), found {}", where,
                map ? map->TypeName() : "none");
  }
  std::map<std::string, int32_t> files;
  for (const auto& [tensor, file] : map->AsObject()) {
    if (!file.is_string()) {
      return Fail(Code::kDataLoss, "{}: the file of tensor '{}' must be text, found {}", where, tensor,
                  file.TypeName());
    }
    const std::string& name = file.AsString();
    if (name.empty() || name.find('/') != std::string::npos || name.find('\0') != std::string::npos ||
        name == "." || name == "..") {
      return Fail(Code::kDataLoss,
                  "{}: the file of tensor '{}' is '{}'; wanted the name of a file in the same folder", where,
                  tensor, name);
    }
    files.emplace(name, 0);
  }
  if (files.empty()) return Fail(Code::kDataLoss, "{}: 'weight_map' is empty", where);
  ShardIndex index;
  for (auto& [name, number] : files) {
    number = static_cast<int32_t>(index.files.size());
    index.files.push_back(name);
  }
  for (const auto& [tensor, file] : map->AsObject())
    index.tensor_file.emplace(tensor, files.at(file.AsString()));
  return index;
}

}  // namespace cadre::checkpoint
