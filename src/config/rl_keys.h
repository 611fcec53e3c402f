#pragma once
// The keys of prime-rl's TOML that Cadre knows, as rows of the same kind as flags; their names are dotted
// paths. Both shapes are known: [inference.model], [inference.parallel] and [pd_disagg] of early 2026, and
// [inference.vllm] and [deployment] of later. Below [inference] and [inference.vllm] every flag of `cadre
// serve` is a key too; below [trainer] and [orchestrator] everything is.
#include <span>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "config/parse.h"
#include "config/rl_layers.h"
#include "config/setting.h"

namespace cadre::config {

/// The rows as tables of docs/reference.md; those of [inference] are named without it.
std::vector<Group> RlGroups();

/// The row of a path, or of the open table that it lies in; nullptr for a table that holds rows, and for what
/// is unknown. "teacher_inference." has the rows of "inference.".
const Setting* FindRlKey(std::string_view path);

/// Whether a name at the top is that of a table, of known or of any keys.
bool IsRlTable(std::string_view name);

/// The flag of `cadre serve` that a path below [inference] or [inference.vllm] names; nullptr for others.
const Setting* FindServeKey(std::string_view path);

/// Checks names, types and ranges of everything that is set, converts values to the types of their rows, and
/// says what has no effect. Errors: kInvalidArgument and kUnsupported with the place and, for an unknown key,
/// the nearest one.
Status CheckRlKeys(RlTree& tree, std::vector<Notice>& notices);

}  // namespace cadre::config
