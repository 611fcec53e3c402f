// Whatever bytes claim to be a safetensors header: an error or a list of tensors that lie inside the file.
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/shard_index.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  // The first two bytes choose the size of the data that follows the header.
  const int64_t data_bytes = data[0] | data[1] << 8;
  const std::string_view header(reinterpret_cast<const char*>(data) + 2, size - 2);
  const int64_t file_bytes = static_cast<int64_t>(header.size()) + 8 + data_bytes;
  const auto tensors = cadre::checkpoint::ParseSafetensorsHeader(header, file_bytes, "f");
  if (tensors) {
    int64_t sum = 0;
    for (const auto& tensor : *tensors) {
      CADRE_CHECK(tensor.offset >= static_cast<int64_t>(header.size()) + 8 && tensor.num_bytes >= 0);
      CADRE_CHECK(tensor.offset + tensor.num_bytes <= file_bytes);
      sum += tensor.num_bytes;
    }
    CADRE_CHECK(sum == data_bytes);
  }
  const auto index = cadre::checkpoint::ParseShardIndex(header, "f");
  if (index) {
    for (const auto& [name, file] : index->tensor_file) {
      CADRE_CHECK(file >= 0 && static_cast<size_t>(file) < index->files.size());
    }
  }
  return 0;
}
