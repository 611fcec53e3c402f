#pragma once
// TOML text <-> Json. The only place that sees the TOML library.
#include <map>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/json.h"

namespace cadre::config {

struct TomlDocument {
  Json values = Json(Json::Object{});
  std::map<std::string, int> lines;  ///< dotted path ("inference.parallel.tp", "env.0.id") -> line, from 1
};

/// One document of at most 1 MiB. Dates become text, the text "None" becomes null (TOML has no null, and
/// prime-rl writes it so). Errors: kInvalidArgument with the line.
Result<TomlDocument> ParseToml(std::string_view text);

/// Reads and parses a file. Errors: kNotFound with the system's reason, or those of ParseToml with
/// FILE:LINE in front.
Result<TomlDocument> LoadToml(const std::string& path);

/// An object as a document; members that are null are left out.
std::string TomlText(const Json& table);

}  // namespace cadre::config
