#pragma once
// Ranks that work together must have been started alike. At the join every rank shows its settings to all
// others.
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "fabric/rendezvous.h"

namespace cadre::group {

/// A setting that must be the same on all ranks: model, dtype, flags, arithmetic id, version.
struct ConfigField {
  std::string name, value;
};

/// One number for a list of settings; order counts. For logs, and for peers that compare before they talk.
uint64_t ConfigHash(const std::vector<ConfigField>& fields);

/// The first setting that two parties do not share, and what to say about it.
struct ConfigDifference {
  std::string name, text;
};
std::optional<ConfigDifference> CompareConfig(const std::string& who_a, const std::vector<ConfigField>& a,
                                              const std::string& who_b, const std::vector<ConfigField>& b);

/// Collective over `ranks` (empty: all). Errors: kInvalidArgument on every rank, with the first field that
/// differs from the first rank's, both values, and all ranks that have the other value; those of the
/// rendezvous.
Status CheckSameConfig(fabric::Rendezvous& rendezvous, const std::vector<int>& ranks,
                       const std::vector<ConfigField>& fields, TimePoint deadline);

}  // namespace cadre::group
