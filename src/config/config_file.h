#pragma once
// --config FILE: the part of YAML that flags need. Mappings and lists by indentation, scalars, quoted text,
// [a, b] and JSON values; anchors, tags, multi-line text and several documents are refused by name.
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/json.h"

namespace cadre::config {

/// One document whose top is a mapping. Errors: kInvalidArgument with the line. Depth and size are bounded.
Result<Json> ParseYaml(std::string_view text);

/// Reads and parses a file. Errors: kNotFound, or those of ParseYaml with the file's name in front.
Result<Json> LoadConfigFile(const std::string& path);

}  // namespace cadre::config
