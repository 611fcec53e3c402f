#pragma once
// Rules of `cadre router` that its table cannot hold.
#include <vector>

#include "config/command_options.h"
#include "config/parse.h"

namespace cadre::config {

/// Takes lists apart at commas, joins the hosts and ports of vLLM's toy proxy to URLs, and checks what must
/// fit together. Errors: kInvalidArgument.
Status SettleRouter(RouterOptions& options, std::vector<Notice>& notices);

}  // namespace cadre::config
