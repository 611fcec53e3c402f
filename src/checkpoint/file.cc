#include "checkpoint/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace cadre::checkpoint {

ReadFile::ReadFile(ReadFile&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)),
      size_(other.size_),
      path_(std::move(other.path_)),
      view_(std::move(other.view_)) {}

ReadFile& ReadFile::operator=(ReadFile&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(size_, other.size_);
  std::swap(path_, other.path_);
  std::swap(view_, other.view_);
  return *this;
}

ReadFile::~ReadFile() {
  if (fd_ >= 0) close(fd_);
}

Result<ReadFile> ReadFile::Open(const std::string& path) {
  ReadFile file;
  file.path_ = path;
  // O_NONBLOCK: opening a pipe must not wait for a writer.
  file.fd_ = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file.fd_ < 0) {
    const int reason = errno;
    const bool missing = reason == ENOENT || reason == ENOTDIR;
    return Fail(missing ? Code::kNotFound : Code::kUnavailable, "cannot open {}: {}", path, strerror(reason));
  }
  struct stat info {};
  if (fstat(file.fd_, &info) != 0)
    return Fail(Code::kUnavailable, "cannot read {}: {}", path, strerror(errno));
  if (!S_ISREG(info.st_mode)) return Fail(Code::kInvalidArgument, "{} is not a regular file", path);
  file.size_ = info.st_size;
  return file;
}

Status ReadFile::ReadAt(int64_t begin, int64_t num_bytes, void* to) const {
  auto* place = static_cast<char*>(to);
  for (int64_t done = 0; done < num_bytes;) {
    const ssize_t n = pread(fd_, place + done, static_cast<size_t>(num_bytes - done), begin + done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0)
      return Fail(Code::kDataLoss, "cannot read {} at byte {}: {}", path_, begin + done, strerror(errno));
    if (n == 0) {
      return Fail(Code::kDataLoss,
                  "{} ends at byte {}, wanted {} bytes from {} on (it had {} bytes when opened)", path_,
                  begin + done, num_bytes, begin, size_);
    }
    done += n;
  }
  return {};
}

void ReadFile::AllowViews() {
  if (auto view = sys::FileView::Map(fd_, size_)) view_ = std::move(*view);
}

Status ReadFile::CheckViews() const {
  if (view_.whole()) return {};
  return Fail(Code::kDataLoss,
              "{} changed while it was read: it is shorter than its {} bytes when opened, or a part of it "
              "cannot be read",
              path_, size_);
}

Result<std::string> ReadWholeFile(const std::string& path, int64_t max_bytes) {
  CADRE_ASSIGN(const ReadFile file, ReadFile::Open(path));
  if (file.size() > max_bytes) {
    return Fail(Code::kDataLoss, "{} has {} bytes; at most {} are read", path, file.size(), max_bytes);
  }
  std::string text(static_cast<size_t>(file.size()), '\0');
  CADRE_TRY(file.ReadAt(0, file.size(), text.data()));
  return text;
}

bool IsFolder(const std::string& path) {
  struct stat info {};
  return stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

bool IsFile(const std::string& path) {
  struct stat info {};
  return stat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode);
}

}  // namespace cadre::checkpoint
