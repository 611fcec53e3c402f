#pragma once
// One set of metrics from the texts of several processes that count the same things.
#include <string>
#include <vector>

namespace cadre {

/// Adds up samples of equal name and labels, in the order of the first text that has them; buckets, counts
/// and sums of histograms are samples like any other. `texts`: what MetricsRegistry::Serialize prints, of
/// counters and histograms (gauges would be added too). A line that is no sample is left out. Linear in the
/// size of the texts.
std::string MergeMetrics(const std::vector<std::string>& texts);

}  // namespace cadre
