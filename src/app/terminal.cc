#include "app/terminal.h"

#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "sys/files.h"
#include "text/utf8.h"

namespace cadre::app {
namespace {

constexpr size_t kMaxLineBytes = 16 << 20;
constexpr size_t kReadBytes = 64 << 10;

}  // namespace

Result<std::optional<std::string>> LineReader::Next() {
  interrupted_ = false;
  size_t searched = 0;
  while (true) {
    const size_t end = buffer_.find('\n', searched);
    if (end != std::string::npos || (ended_ && !buffer_.empty())) {
      std::string line = buffer_.substr(0, end);
      buffer_.erase(0, end == std::string::npos ? end : end + 1);
      if (line.ends_with('\r')) line.pop_back();
      return text::RepairUtf8(line);
    }
    if (ended_) return std::nullopt;
    searched = buffer_.size();
    if (searched > kMaxLineBytes) {
      return Fail(Code::kInvalidArgument, "a line of the input is longer than {} bytes", kMaxLineBytes);
    }
    buffer_.resize(searched + kReadBytes);
    const ssize_t n = read(fd_, buffer_.data() + searched, kReadBytes);
    const int error = errno;
    buffer_.resize(searched + static_cast<size_t>(n > 0 ? n : 0));
    if (n == 0) ended_ = true;
    if (n >= 0) continue;
    if (error != EINTR) return Fail(Code::kUnavailable, "cannot read the input: {}", sys::ErrnoText(error));
    buffer_.clear();
    interrupted_ = true;
    return std::string();
  }
}

std::string WithoutControls(std::string_view text) {
  std::string clean;
  clean.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    // U+0080..U+009F are controls too: C2 80..9F.
    const bool c1 = c == 0xC2 && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) < 0xA0;
    if (c1 || (c < 0x20 && c != '\n' && c != '\t') || c == 0x7F) {
      clean += text::kReplacementText;
      i += c1;
    } else {
      clean += text[i];
    }
  }
  return clean;
}

void WriteModelText(std::string_view text) {
  static const bool terminal = isatty(STDOUT_FILENO) == 1;
  const std::string clean = terminal ? WithoutControls(text) : std::string();
  const std::string_view out = terminal ? std::string_view(clean) : text;
  std::fwrite(out.data(), 1, out.size(), stdout);
}

}  // namespace cadre::app
