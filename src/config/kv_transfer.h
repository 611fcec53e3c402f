#pragma once
// What --kv-transfer-config says, checked and with its defaults.
#include <vector>

#include "config/parse.h"
#include "config/settle.h"

namespace cadre::config {

/// Errors: a connector that is not built, a missing role, a member that makes no sense. Notices of what has no
/// effect.
Status SettleKvTransfer(const Settlement& settled, KvTransferOptions& kv, std::vector<Notice>& notices);

}  // namespace cadre::config
