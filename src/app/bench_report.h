#pragma once
// What the benchmarks print and write: each speed beside the floor of the machine.
#include <string>
#include <vector>

#include "app/floor.h"
#include "base/json.h"

namespace cadre::app {

/// A measured speed and what the machine would allow.
struct SpeedLine {
  std::string name;    ///< key in the result file: "decode" -> decode_tokens_per_second, ...
  double tokens = 0;   ///< of one measured piece of work
  double seconds = 0;  ///< it took
  Work work;           ///< that it needs
  Floor floor;         ///< the least time for it

  double per_second() const { return seconds > 0 ? tokens / seconds : 0; }
  double floor_per_second() const { return floor.seconds() > 0 ? tokens / floor.seconds() : 0; }
  /// 1: as fast as the machine.
  double share() const { return seconds > 0 ? floor.seconds() / seconds : 0; }
};

/// A mix of requests that were answered together.
struct LoadTotals {
  int64_t num_prompts = 0, num_sequences = 0;
  int64_t num_together = 0;  ///< sequences at once, at most
  int64_t prompt_tokens = 0, output_tokens = 0;
  double seconds = 0;
};
/// Lines prefill, decode and total: prompt tokens, answer tokens and both over the whole time, beside the
/// floor of all the work together (at the mean lengths).
std::vector<SpeedLine> LoadSpeeds(const LoadTotals& totals, ModelCost cost,
                                  const kernels::MachineRates& rates);

/// A table for a person.
std::string SpeedTable(const std::vector<SpeedLine>& lines, const kernels::MachineRates& rates);

/// <name>_tokens_per_second, <name>_floor_tokens_per_second, <name>_share_of_floor, <name>_bound,
/// <name>_bytes, <name>_operations for each line.
void AddSpeeds(Json& result, const std::vector<SpeedLine>& lines);

/// Writes a result file. Errors: kUnavailable naming the file.
Status WriteJsonFile(const std::string& path, const Json& value);
/// Whether a result file could be written there; asked before a long run. Creates an empty file.
Status CheckWritable(const std::optional<std::string>& path, const char* flag);

}  // namespace cadre::app
