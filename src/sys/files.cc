#include "sys/files.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <system_error>

namespace cadre::sys {
namespace {

Code CodeOfErrno(int error) {
  return error == ENOENT || error == ENOTDIR ? Code::kNotFound : Code::kUnavailable;
}

struct FdCloser {
  int fd;
  ~FdCloser() { close(fd); }
};

}  // namespace

std::string ErrnoText(int error) {
  return std::generic_category().message(error);
}

Result<std::string> ReadFile(const std::string& path, size_t max_bytes) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return Fail(CodeOfErrno(errno), "cannot open '{}': {}", path, ErrnoText(errno));
  const FdCloser closer{fd};
  std::string text;
  size_t filled = 0;
  while (true) {
    // /proc and /sys report a size of 0, so the size is found by reading. One byte past the limit tells "too
    // long".
    text.resize(std::min(max_bytes + 1, std::max<size_t>(filled * 2, 16384)));
    const ssize_t n = read(fd, text.data() + filled, text.size() - filled);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return Fail(Code::kUnavailable, "cannot read '{}': {}", path, ErrnoText(errno));
    if (n == 0) break;
    filled += static_cast<size_t>(n);
    if (filled > max_bytes) {
      return Fail(Code::kResourceExhausted, "'{}' is longer than the {} bytes allowed", path, max_bytes);
    }
  }
  text.resize(filled);
  return text;
}

Status ReplaceFile(const std::string& path, std::string_view bytes) {
  struct stat info;
  if (stat(path.c_str(), &info) == 0 && !S_ISREG(info.st_mode))
    return Fail(Code::kUnavailable, "cannot write '{}': it is no regular file", path);
  const std::string beside = path + ".tmp";
  const auto failed = [&](int error) {
    unlink(beside.c_str());
    return Fail(Code::kUnavailable, "cannot write '{}': {}", path, ErrnoText(error));
  };
  const int fd = open(beside.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return failed(errno);
  {
    const FdCloser closer{fd};
    while (!bytes.empty()) {
      const ssize_t n = write(fd, bytes.data(), bytes.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return failed(errno);
      bytes.remove_prefix(static_cast<size_t>(n));
    }
    if (fsync(fd) != 0) return failed(errno);
  }
  if (rename(beside.c_str(), path.c_str()) != 0) return failed(errno);
  return {};
}

void RemoveFile(const std::string& path) {
  unlink(path.c_str());
}

bool FileExists(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0;
}

bool IsFolder(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

Result<std::vector<std::string>> ListFolder(const std::string& path) {
  const std::unique_ptr<DIR, int (*)(DIR*)> folder(opendir(path.c_str()), closedir);
  if (!folder) return Fail(CodeOfErrno(errno), "cannot list '{}': {}", path, ErrnoText(errno));
  std::vector<std::string> names;
  while (const dirent* entry = readdir(folder.get())) {
    const std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace cadre::sys
