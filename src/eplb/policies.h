#pragma once
// The policies behind FindPolicy, one file each. A new one: its file, a line here, its place in kPolicies
// (policy.cc), its name among the choices of --eplb-config.policy.
#include "eplb/policy.h"

namespace cadre::eplb {

/// "default": DeepSeek's hierarchical and global balancing, as vLLM runs it.
const Policy* DefaultPolicy();

}  // namespace cadre::eplb
