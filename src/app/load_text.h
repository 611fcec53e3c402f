#pragma once
// A load as a heat map of characters.
#include <string>

#include "app/load_view.h"

namespace cadre::app {

struct LoadTextOptions {
  int32_t width = 80;  ///< columns; at least 80
  bool color = false;  ///< with ANSI colours; the blocks' heights say the same
};

/// Experts by layers, then ranks before and after. UTF-8, lines of at most `width` columns.
std::string LoadText(const LoadView& view, const LoadTextOptions& options);

}  // namespace cadre::app
