#pragma once
// The header of a safetensors file: 8 bytes of length (little endian), then that much JSON
//   {"name": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [begin, end]}, ..., "__metadata__": {...}}
// then the data, which the tensors must cover without gap or overlap.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "checkpoint/source.h"

namespace cadre::checkpoint {

/// Longest header that is read. The format's own limit.
constexpr int64_t kMaxHeaderBytes = 100'000'000;

/// The tensors that a header lists, by rising offset; TensorInfo::offset counts from the start of the file,
/// ::file is 0. `header` is the JSON alone, `file_bytes` the size of the whole file, `file` its name for
/// messages. Errors: kDataLoss, naming file and tensor, what was wanted and what was found. Cost: linear;
/// about 40 bytes a JSON value on the way.
Result<std::vector<TensorInfo>> ParseSafetensorsHeader(std::string_view header, int64_t file_bytes,
                                                       const std::string& file);

/// What a safetensors header calls a type; kF8E4M3 is "F8_E4M3".
const char* SafetensorsTypeName(DType type);

/// Bytes of a file with these tensors (name, dtype, shape; the rest is ignored), without the data: length and
/// header, padded to 8. Offsets follow the order given. For tests and tools that write checkpoints.
std::string MakeSafetensorsHeader(const std::vector<TensorInfo>& tensors);

}  // namespace cadre::checkpoint
