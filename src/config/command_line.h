#pragma once
// The words of a command line -> settings given, in order. Written by hand over the table instead of with
// CLI11, because vLLM's own rules are not a general parser's: `_` equals `-`, unique prefixes, multi-letter
// shorts (-tp 2), dotted members of JSON options (--eplb-config.window_size 10, --x.list+ item), -O2 and
// -O.mode, older spellings, and an answer for flags of other commands. With CLI11 each of these would go
// around the library.
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "config/settings.h"

namespace cadre::config {

/// One setting as somebody wrote it.
struct Given {
  const Setting* setting = nullptr;
  std::vector<std::string> path = {};  ///< members of a JSON option; empty: the whole value
  bool append = false;                 ///< path names a list that the value is added to
  Json value = {};
  std::string_view older = {};  ///< the older spelling that was used, if one was
  std::string source = {};      ///< for messages: "--port", "port in serve.yaml", "VLLM_API_KEY"
};

struct CommandLine {
  std::vector<Given> given;
  std::vector<std::string> words;          ///< what is no flag: the model
  std::optional<std::string> help;         ///< --help; the topic after '=' or ""
  std::optional<std::string> config_file;  ///< --config
};

/// Reads the words after the command's name. Errors: kInvalidArgument naming the word, with the nearest
/// flags.
Result<CommandLine> ParseCommandLine(Command command, std::span<const std::string> args);

/// What a name means.
struct Match {
  const Setting* setting = nullptr;
  bool negated = false;                ///< --no-x
  std::vector<std::string> path = {};  ///< from an older spelling that is now a member
  bool is_switch = false;              ///< such a spelling, and it took no value
  std::string_view older = {};         ///< that spelling's row name
};

/// The row that `name` (without dashes in front, `_` or `-`) means: exact, or if `prefixes` a unique
/// beginning.
Result<Match> ResolveName(Command command, std::string_view name, bool prefixes);

/// Up to three names like `name`, for "did you mean".
std::vector<std::string> NearestNames(Command command, std::string_view name);

/// Number of single-letter edits between two words.
size_t EditDistance(std::string_view a, std::string_view b);

/// Text after a dotted name: JSON if it reads as such, else a string.
Json MemberValue(std::string_view text);

}  // namespace cadre::config
