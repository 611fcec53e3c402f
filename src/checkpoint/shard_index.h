#pragma once
// model.safetensors.index.json: which shard holds which tensor.
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/error.h"

namespace cadre::checkpoint {

struct ShardIndex {
  std::vector<std::string> files;                        ///< plain file names, sorted
  std::unordered_map<std::string, int32_t> tensor_file;  ///< tensor -> index in `files`
};

/// Reads the text of an index; `where` is its name for messages. A shard must be a plain file name in the
/// same folder.
Result<ShardIndex> ParseShardIndex(std::string_view text, const std::string& where);

}  // namespace cadre::checkpoint
