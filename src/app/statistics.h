#pragma once
// Numbers about samples, as numpy defines them (vLLM's reports are made with it).
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace cadre::app {

double Mean(const std::vector<double>& values);  ///< 0 without values
/// Standard deviation of the whole population (not of a sample); 0 without values.
double StandardDeviation(const std::vector<double>& values);
/// 0 <= percent <= 100, linear between neighbours; 0 without values.
double Percentile(std::vector<double> values, double percent);
inline double Median(const std::vector<double>& values) {
  return Percentile(values, 50);
}

/// "50,99,99.9". Errors: kInvalidArgument naming `flag` for other text or numbers outside 0..100.
Result<std::vector<double>> ParsePercentiles(std::string_view list, const char* flag);
/// 99 -> "99", 99.9 -> "99.9": how keys and rows of reports write it.
std::string PercentileName(double percent);

}  // namespace cadre::app
