#pragma once
// A file's bytes where the page cache has them, without a copy.
//
// A mapped file that somebody cuts short, or whose disk fails, answers a look with SIGBUS, which would end
// the process. For the views made here a handler puts zeros in the place of what is missing and notes it: who
// has looked asks afterwards whether all was there (whole), and throws away what it made of it where not.
#include <cstddef>
#include <cstdint>

#include "base/error.h"

namespace cadre::sys {

class FileView {
 public:
  FileView() = default;  ///< of nothing: has no bytes in memory
  FileView(FileView&& other) noexcept;
  FileView& operator=(FileView&& other) noexcept;
  ~FileView();

  /// Maps the first num_bytes of an open file, which must stay open as long as the view lives. Reads nothing.
  /// The first call sets the process's handler of SIGBUS; others' faults go to the one that was set before.
  /// Errors: kUnavailable (the system's reason; or there are 4,096 views already).
  static Result<FileView> Map(int fd, int64_t num_bytes);

  /// The bytes [begin, begin + num_bytes), if they seem to be in memory (the first and the last are); else
  /// nullptr: they are better read. Valid as long as the view. Any thread; costs two system calls.
  const std::byte* Cached(int64_t begin, int64_t num_bytes) const;

  /// Whether the file is still as long as the view and nothing that was looked at was missing.
  bool whole() const;

 private:
  int fd_ = -1;
  int slot_ = -1;  // in the handler's table
  const std::byte* data_ = nullptr;
  int64_t num_bytes_ = 0;
};

}  // namespace cadre::sys
