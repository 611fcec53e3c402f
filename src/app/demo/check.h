#pragma once
// What holds `cadre demo` to its word: memory before it starts; counts and results afterwards.
#include <vector>

#include "app/demo/ranks.h"
#include "eplb/expert_map.h"

namespace cadre::app::demo {

/// Errors: kResourceExhausted with what is needed and what there is.
Status CheckMemory(const Plan& plan, const eplb::ExpertMap& map);

/// [from][to], from the choices that the ranks report.
std::vector<std::vector<Traffic>> CountTraffic(const Plan& plan, const eplb::ExpertMap& map,
                                               const std::vector<RankReport>& ranks);

/// What came is what was sent, and the counters of bytes are what the formulas say. Errors: kInternal.
Status CheckCounts(const Plan& plan, const eplb::ExpertMap& map, const Outcome& outcome, int64_t chunk_rows);

/// Computes the same tokens in this process, which holds all experts, and fills in what the outcome says
/// about it. A sum of K terms in any order is off by at most (K - 1) units of the sum of the terms'
/// magnitudes, a product before it by one more; two such sums differ by at most twice that. Errors: kInternal
/// for more.
Status CheckAlone(const Plan& plan, Outcome& outcome);

}  // namespace cadre::app::demo
