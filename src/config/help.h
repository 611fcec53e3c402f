#pragma once
// --help, from the same table as everything else.
#include <string>
#include <string_view>

#include "base/error.h"
#include "config/settings.h"

namespace cadre::config {

/// `topic` as in vLLM: "" or "listgroup" (usage and groups), "all", a group's name, a flag, or a part of
/// flags' names. Errors: kNotFound if nothing fits.
Result<std::string> HelpText(Command command, std::string_view topic);

/// "usage: cadre serve MODEL [flags]", an empty line, what it does.
std::string UsageText(Command command);

}  // namespace cadre::config
