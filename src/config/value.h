#pragma once
// Text as typed -> a checked JSON value of a setting's type.
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "config/setting.h"

namespace cadre::config {

/// "12", "4k" (4000), "4K" (4096), "2.5m"; suffixes k m g t count in thousands, K M G T in 1024s and take no
/// point.
Result<int64_t> ParseHumanInt(std::string_view text);
Result<int64_t> ParseInt(std::string_view text);
Result<double> ParseDouble(std::string_view text);

/// The value of `setting` written as `text`. `what` names it in errors ("--port"). Not for kStrings (see
/// command_line.cc). Errors: kInvalidArgument with the name, the text and what was wanted.
Result<Json> ParseValue(const Setting& setting, std::string_view text, std::string_view what);

/// The same for a value that comes from YAML or JSON: numbers and booleans may also be written as text.
Result<Json> ConvertValue(const Setting& setting, const Json& value, std::string_view what);

/// Range and choices.
Status CheckValue(const Setting& setting, const Json& value, std::string_view what);

/// The default as a value; null if the setting is unset by default.
Json FallbackValue(const Setting& setting);

/// A value as a person would type it.
std::string ValueText(const Json& value);

/// "an integer", "true or false", ...
std::string_view TypeText(Type type);

std::vector<std::string_view> SplitComma(std::string_view list);
std::string Trim(std::string_view text);

}  // namespace cadre::config
