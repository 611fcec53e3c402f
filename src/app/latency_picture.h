#pragma once
// Times between tokens as a picture: how they went in the course of a load, and how they are distributed.
#include <string>
#include <vector>

#include "app/mix_report.h"

namespace cadre::app {

/// One SVG document about the chats of the runs (all requests, where none is a long prompt): for each run a
/// strip over time, with the moments at which long prompts were sent; then all runs' percentiles. Its size
/// does not depend on the number of tokens. At most 4 runs are drawn.
std::string LatencySvg(const std::string& title, const std::string& subtitle,
                       const std::vector<LoadRun>& runs);

}  // namespace cadre::app
