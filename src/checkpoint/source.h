#pragma once
// Where tensors come from: named arrays of bytes that can be read in parts, by many threads at once.
//
// A checkpoint folder is one source (OpenCheckpoint); an update that comes from elsewhere is another. What
// the page cache has can be looked at in place; a file that shrinks meanwhile gives an error, not a signal.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "tensor/dtype.h"

namespace cadre::checkpoint {

struct TensorInfo {
  std::string name = {};
  DType dtype = DType::kF32;
  std::vector<int64_t> shape = {};
  int64_t num_bytes = 0;  ///< product of the shape times the element size (checked)
  int32_t file = 0;       ///< index among the source's files
  int64_t offset = 0;     ///< of the first byte in that file; orders reads

  std::string ShapeText() const;  ///< "[128, 64]"
};

class TensorSource {
 public:
  virtual ~TensorSource() = default;

  /// All tensors; the order is stable. Pointers into it stay valid as long as the source lives.
  virtual const std::vector<TensorInfo>& tensors() const = 0;
  /// nullptr if there is none of that name. Constant time.
  virtual const TensorInfo* Find(std::string_view name) const = 0;
  /// For messages: the file that holds a tensor.
  virtual std::string FileOf(const TensorInfo& tensor) const = 0;
  /// Reads bytes [begin, begin + num_bytes) of a tensor of this source. The range must lie inside the tensor
  /// (checked). Errors: kDataLoss (the file ends early or cannot be read). Any thread.
  virtual Status Read(const TensorInfo& tensor, int64_t begin, int64_t num_bytes, void* to) const = 0;
  /// The same bytes where they lie in memory, at any alignment, or nullptr: they must be Read. Valid as long
  /// as the source; good only if CheckViews says so after the last look. Any thread.
  virtual const std::byte* View(const TensorInfo&, int64_t /*begin*/, int64_t /*num_bytes*/) const {
    return nullptr;
  }
  /// Errors: kDataLoss if a view has shown what the source does not hold.
  virtual Status CheckViews() const { return {}; }
};

/// Opens the safetensors files of a folder: model.safetensors, or the shards that
/// model.safetensors.index.json lists. Reads headers only. Errors: kNotFound (folder, index or shard missing:
/// named), kDataLoss (damaged or truncated).
Result<std::unique_ptr<TensorSource>> OpenCheckpoint(const std::string& folder);

/// One safetensors file. Errors: as ReadFile::Open; kDataLoss (damaged or truncated).
Result<std::unique_ptr<TensorSource>> OpenSafetensors(const std::string& file);

}  // namespace cadre::checkpoint
