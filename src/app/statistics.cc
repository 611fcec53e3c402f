#include "app/statistics.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "config/value.h"

namespace cadre::app {

double Mean(const std::vector<double>& values) {
  if (values.empty()) return 0;
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

double StandardDeviation(const std::vector<double>& values) {
  if (values.empty()) return 0;
  const double mean = Mean(values);
  double sum = 0;
  for (const double value : values) sum += (value - mean) * (value - mean);
  return std::sqrt(sum / static_cast<double>(values.size()));
}

double Percentile(std::vector<double> values, double percent) {
  if (values.empty()) return 0;
  const double place = percent / 100 * static_cast<double>(values.size() - 1);
  const auto low = static_cast<size_t>(place);
  const size_t high = std::min(low + 1, values.size() - 1);
  std::nth_element(values.begin(), values.begin() + static_cast<ptrdiff_t>(low), values.end());
  const double below = values[low];
  if (high == low) return below;
  const double above = *std::min_element(values.begin() + static_cast<ptrdiff_t>(high), values.end());
  return below + (above - below) * (place - static_cast<double>(low));
}

Result<std::vector<double>> ParsePercentiles(std::string_view list, const char* flag) {
  std::vector<double> percents;
  for (const std::string_view word : config::SplitComma(list)) {
    const auto percent = config::ParseDouble(config::Trim(word));
    if (!percent || !(*percent >= 0 && *percent <= 100)) {
      return FailParam(Code::kInvalidArgument, flag,
                       "{} wants numbers from 0 to 100 separated by commas, not '{}'", flag, word);
    }
    percents.push_back(*percent);
  }
  return percents;
}

std::string PercentileName(double percent) {
  return percent == std::floor(percent) ? Format("{:.0f}", percent) : Format("{}", percent);
}

}  // namespace cadre::app
