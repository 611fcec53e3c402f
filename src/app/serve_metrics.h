#pragma once
// From the records of a load to what `vllm bench serve` reports, with its names.
#include <map>
#include <string>
#include <vector>

#include "app/load_generator.h"
#include "base/json.h"

namespace cadre::app {

/// Samples of one measure, in ms.
struct Measure {
  std::string key;     ///< "ttft"
  std::string title;   ///< "TTFT"
  std::string header;  ///< "Time to First Token"
  std::vector<double> ms;
};

struct ServeMetrics {
  int64_t completed = 0, failed = 0;
  int64_t total_input_tokens = 0, total_output_tokens = 0;
  double duration = 0;
  double request_throughput = 0, output_throughput = 0, total_token_throughput = 0;
  std::optional<double> request_goodput;
  double max_output_tokens_per_s = 0;  ///< the best second
  int64_t max_concurrent_requests = 0;
  std::vector<Measure> measures;  ///< ttft, tpot, itl, e2el
};

/// Limits in ms by the name of the measure (ttft, tpot, e2el); empty: no goodput.
using Goodput = std::map<std::string, double>;

/// Failed requests count as such and in nothing else.
ServeMetrics Summarize(const LoadResult& load, const Goodput& goodput);

struct ReportOptions {
  std::vector<std::string> selected;  ///< measures that are printed, and get percentiles
  std::vector<double> percentiles;
  std::optional<int64_t> max_concurrency;
  double request_rate = 0;  ///< infinite: all at once
};

/// vLLM's table.
std::string ServeTable(const ServeMetrics& metrics, const ReportOptions& options);
/// vLLM's result object, without what the flags said. `detailed`: with every request's numbers.
Json ServeResult(const ServeMetrics& metrics, const LoadResult& load, const ReportOptions& options,
                 bool detailed);

}  // namespace cadre::app
