#pragma once
// What --lora-modules says, and what goes together with adapters.
#include <vector>

#include "config/parse.h"
#include "config/serve_options.h"

namespace cadre::config {

/// Fills `lora.modules` from NAME=PATH words and JSON objects. Errors: a word that is neither, a name given
/// twice or taken by the model, adapters without --enable-lora, more of them than may be loaded.
Status SettleLora(const ModelOptions& model, LoraOptions& lora);

}  // namespace cadre::config
