#pragma once
// docs/reference.md, made from the tables; a test compares the file in the tree with this.
#include <string>

namespace cadre::config {

/// The whole page: flags of every command, members of JSON options, environment variables.
std::string ReferenceText();

}  // namespace cadre::config
