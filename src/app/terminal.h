#pragma once
// Lines from stdin and a model's text to stdout.
#include <optional>
#include <string>
#include <string_view>

#include "base/error.h"

namespace cadre::app {

/// Reads lines with read(2), so that a signal can end the wait.
class LineReader {
 public:
  explicit LineReader(int fd) : fd_(fd) {}

  /// The next line without its end, bad UTF-8 replaced; empty at the end of the input. After a signal: an
  /// empty line, and interrupted() is true. Errors: kInvalidArgument for a line of more than 16 MiB,
  /// kUnavailable.
  Result<std::optional<std::string>> Next();
  bool interrupted() const { return interrupted_; }

 private:
  const int fd_;
  bool ended_ = false, interrupted_ = false;
  std::string buffer_;
};

/// To stdout. On a terminal control characters but newline and tab are replaced: what a model says must not
/// move the cursor or rename the window.
void WriteModelText(std::string_view text);

/// `text` with control characters replaced, as WriteModelText does it on a terminal.
std::string WithoutControls(std::string_view text);

}  // namespace cadre::app
