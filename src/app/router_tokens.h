#pragma once
// A router's view of prompts as tokens: those that the workers will count.
#include "config/command_options.h"
#include "route/options.h"

namespace cadre::app {

/// Loads --tokenizer's tokenizer and chat template. Errors: those of checkpoint::LocateModel and
/// session::LoadHfText.
Result<route::Tokenize> LoadTokenize(const config::RouterOptions& options);

}  // namespace cadre::app
