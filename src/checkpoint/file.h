#pragma once
// Reading files that somebody else made: regular files only, bounded, and an error instead of a surprise.
#include <cstdint>
#include <string>

#include "base/error.h"
#include "sys/file_view.h"

namespace cadre::checkpoint {

/// A file open for reading. Move-only.
class ReadFile {
 public:
  ReadFile() = default;
  ReadFile(ReadFile&& other) noexcept;
  ReadFile& operator=(ReadFile&& other) noexcept;
  ~ReadFile();

  /// Errors: kNotFound (no such file), kInvalidArgument (not a regular file), kUnavailable (the system's
  /// reason).
  static Result<ReadFile> Open(const std::string& path);

  const std::string& path() const { return path_; }
  int64_t size() const { return size_; }  ///< when it was opened

  /// Reads exactly [begin, begin + num_bytes). Errors: kDataLoss. Any thread.
  Status ReadAt(int64_t begin, int64_t num_bytes, void* to) const;

  /// From now on ViewAt shows what is in the page cache, where the system allows it.
  void AllowViews();
  /// The bytes [begin, begin + num_bytes) in the page cache, or nullptr: they must be read. Valid as long as
  /// the file is open; good only if CheckViews says so afterwards. Any thread.
  const std::byte* ViewAt(int64_t begin, int64_t num_bytes) const { return view_.Cached(begin, num_bytes); }
  /// Errors: kDataLoss if a view has shown what was not there: the file has become shorter, or its disk
  /// fails.
  Status CheckViews() const;

 private:
  int fd_ = -1;
  int64_t size_ = 0;
  std::string path_;
  sys::FileView view_;
};

/// The whole file. Errors: as Open; kDataLoss if it is longer than max_bytes.
Result<std::string> ReadWholeFile(const std::string& path, int64_t max_bytes);

bool IsFolder(const std::string& path);
bool IsFile(const std::string& path);

}  // namespace cadre::checkpoint
