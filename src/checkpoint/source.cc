#include "checkpoint/source.h"

#include <unordered_map>

#include "base/check.h"
#include "checkpoint/file.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/shard_index.h"

namespace cadre::checkpoint {
namespace {

constexpr const char* kSingleFile = "model.safetensors";
constexpr const char* kIndexFile = "model.safetensors.index.json";
constexpr int64_t kMaxIndexBytes = 100'000'000;

class FileSource : public TensorSource {
 public:
  const std::vector<TensorInfo>& tensors() const override { return tensors_; }

  const TensorInfo* Find(std::string_view name) const override {
    const auto found = by_name_.find(name);
    return found == by_name_.end() ? nullptr : &tensors_[found->second];
  }

  std::string FileOf(const TensorInfo& tensor) const override { return files_[Index(tensor)].path(); }

  Status Read(const TensorInfo& tensor, int64_t begin, int64_t num_bytes, void* to) const override {
    CADRE_CHECK(begin >= 0 && num_bytes >= 0 && begin + num_bytes <= tensor.num_bytes);
    return files_[Index(tensor)].ReadAt(tensor.offset + begin, num_bytes, to);
  }

  const std::byte* View(const TensorInfo& tensor, int64_t begin, int64_t num_bytes) const override {
    CADRE_CHECK(begin >= 0 && num_bytes >= 0 && begin + num_bytes <= tensor.num_bytes);
    return files_[Index(tensor)].ViewAt(tensor.offset + begin, num_bytes);
  }

  Status CheckViews() const override {
    for (const ReadFile& file : files_) CADRE_TRY(file.CheckViews());
    return {};
  }

  /// Adds the tensors of a file; with an index only those that it places here.
  Status Add(const std::string& path, const ShardIndex* index) {
    const auto number = static_cast<int32_t>(files_.size());
    CADRE_ASSIGN(ReadFile file, ReadFile::Open(path));
    CADRE_ASSIGN(std::vector<TensorInfo> tensors, ReadHeader(file));
    for (TensorInfo& tensor : tensors) {
      if (index) {
        const auto place = index->tensor_file.find(tensor.name);
        if (place == index->tensor_file.end() || place->second != number) continue;
      }
      tensor.file = number;
      tensors_.push_back(std::move(tensor));
    }
    file.AllowViews();
    files_.push_back(std::move(file));
    return {};
  }

  /// Call once, after the last Add.
  void Finish() {
    by_name_.reserve(tensors_.size());
    for (size_t i = 0; i < tensors_.size(); ++i) by_name_.emplace(tensors_[i].name, i);
  }

 private:
  static size_t Index(const TensorInfo& tensor) { return static_cast<size_t>(tensor.file); }

  static Result<std::vector<TensorInfo>> ReadHeader(const ReadFile& file) {
    unsigned char length[8] = {};
    if (file.size() < 8) {
      return Fail(Code::kDataLoss, "{}: the file is truncated: wanted at least 8 bytes, found {}",
                  file.path(), file.size());
    }
    CADRE_TRY(file.ReadAt(0, 8, length));
    uint64_t header_bytes = 0;
    for (size_t i = 8; i-- > 0;) header_bytes = header_bytes << 8 | length[i];
    if (header_bytes > static_cast<uint64_t>(kMaxHeaderBytes)) {
      return Fail(Code::kDataLoss,
                  "{}: no safetensors file: its first 8 bytes say that the header has {} bytes; at most {} "
                  "are read",
                  file.path(), header_bytes, kMaxHeaderBytes);
    }
    if (static_cast<int64_t>(header_bytes) > file.size() - 8) {
      return Fail(Code::kDataLoss,
                  "{}: the file is truncated: wanted a header of {} bytes, found {}. Download it again",
                  file.path(), header_bytes, file.size() - 8);
    }
    std::string header(header_bytes, '\0');
    CADRE_TRY(file.ReadAt(8, static_cast<int64_t>(header_bytes), header.data()));
    return ParseSafetensorsHeader(header, file.size(), file.path());
  }

  std::vector<ReadFile> files_;
  std::vector<TensorInfo> tensors_;
  std::unordered_map<std::string_view, size_t> by_name_;  // views into tensors_, which no longer grows
};

Status AddShards(const std::string& folder, FileSource& source) {
  const std::string where = folder + "/" + kIndexFile;
  CADRE_ASSIGN(const std::string text, ReadWholeFile(where, kMaxIndexBytes));
  CADRE_ASSIGN(const ShardIndex index, ParseShardIndex(text, where));
  std::string missing;
  for (const std::string& file : index.files) {
    if (!IsFile(folder + "/" + file)) missing += (missing.empty() ? "" : ", ") + file;
  }
  if (!missing.empty()) {
    return Fail(Code::kNotFound,
                "the checkpoint in {} is incomplete: {} lists {} shards, missing: {}. Download it again",
                folder, kIndexFile, index.files.size(), missing);
  }
  for (const std::string& file : index.files) CADRE_TRY(source.Add(folder + "/" + file, &index));
  source.Finish();
  for (const auto& [tensor, file] : index.tensor_file) {
    if (!source.Find(tensor)) {
      return Fail(Code::kDataLoss, "{} says that tensor '{}' is in {}, but it is not there", where, tensor,
                  index.files[static_cast<size_t>(file)]);
    }
  }
  return {};
}

}  // namespace

std::string TensorInfo::ShapeText() const {
  return Format("[{}]", fmt::join(shape, ", "));
}

Result<std::unique_ptr<TensorSource>> OpenCheckpoint(const std::string& folder) {
  if (!IsFolder(folder)) return Fail(Code::kNotFound, "there is no folder {}", folder);
  auto source = std::make_unique<FileSource>();
  if (IsFile(folder + "/" + kSingleFile)) {
    CADRE_TRY(source->Add(folder + "/" + kSingleFile, nullptr));
    source->Finish();
  } else if (IsFile(folder + "/" + kIndexFile)) {
    CADRE_TRY(AddShards(folder, *source));
  } else {
    return Fail(
        Code::kNotFound,
        "no weights in {}: wanted {} or {}. Other formats (pytorch_model.bin, GGUF) must be converted to "
        "safetensors first",
        folder, kSingleFile, kIndexFile);
  }
  return source;
}

Result<std::unique_ptr<TensorSource>> OpenSafetensors(const std::string& file) {
  auto source = std::make_unique<FileSource>();
  CADRE_TRY(source->Add(file, nullptr));
  source->Finish();
  return source;
}

}  // namespace cadre::checkpoint
