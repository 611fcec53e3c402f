#pragma once
// A load as a picture: experts by layers, then ranks before and after.
#include <string>

#include "app/load_view.h"

namespace cadre::app {

/// One SVG document. At most 128 x 256 cells a map, whatever the model's size.
std::string LoadSvg(const LoadView& view);

/// A page of its own (nothing is loaded from elsewhere) with the picture, whose cells tell their numbers
/// under the pointer, and a table of the ranks.
std::string LoadHtml(const LoadView& view);

}  // namespace cadre::app
