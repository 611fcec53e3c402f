#pragma once
// The manual page cadre(1), made from the tables of flags.
#include <string>

namespace cadre::config {

/// In the language of man(7).
std::string ManPageText(const std::string& version);

}  // namespace cadre::config
