#pragma once
// Completions for shells, made from the tables of flags.
#include <span>
#include <string>
#include <string_view>

#include "base/error.h"

namespace cadre::config {

/// The file that `shell` ("bash", "zsh" or "fish") reads. Errors: kInvalidArgument for another name.
Result<std::string> CompletionText(std::string_view shell);

/// Commands without a table of flags: "version", "man", ...
std::span<const std::string_view> PlainCommands();

}  // namespace cadre::config
