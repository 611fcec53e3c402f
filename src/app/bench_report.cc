#include "app/bench_report.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>

#include "sys/files.h"

namespace cadre::app {

std::vector<SpeedLine> LoadSpeeds(const LoadTotals& totals, ModelCost cost,
                                  const kernels::MachineRates& rates) {
  const auto prompts = static_cast<double>(totals.num_prompts),
             sequences = static_cast<double>(totals.num_sequences);
  if (totals.num_prompts == 0) return {};
  cost.max_sequences_per_step = std::min(cost.max_sequences_per_step, totals.num_together);
  const Work prefill = PrefillWork(cost, prompts, static_cast<double>(totals.prompt_tokens) / prompts);
  const Work decode = DecodeWork(cost, sequences, static_cast<double>(totals.prompt_tokens) / prompts,
                                 static_cast<double>(totals.output_tokens) / sequences);
  Work all = prefill;
  all += decode;
  // The two phases have bounds of their own: their floors add up.
  const Floor floor = FloorOf(prefill, rates) + FloorOf(decode, rates);
  const auto line = [&](const char* name, int64_t tokens) {
    return SpeedLine{.name = name,
                     .tokens = static_cast<double>(tokens),
                     .seconds = totals.seconds,
                     .work = all,
                     .floor = floor};
  };
  return {line("prefill", totals.prompt_tokens), line("decode", totals.output_tokens),
          line("total", totals.prompt_tokens + totals.output_tokens)};
}

std::string SpeedTable(const std::vector<SpeedLine>& lines, const kernels::MachineRates& rates) {
  std::string table = Format("{:<12}{:>12}{:>14}{:>10}  {}\n", "", "tokens/s", "floor", "share", "bound by");
  for (const SpeedLine& line : lines) {
    table += Format("{:<12}{:>12.1f}{:>14.1f}{:>8.1f} %  {}\n", line.name, line.per_second(),
                    line.floor_per_second(), line.share() * 100, line.floor.bound());
  }
  table += Format("floor: all threads read {:.1f} GB/s and do {:.1f} GFLOP/s here (measured)\n",
                  rates.read_bytes_per_s / 1e9, rates.operations_per_s / 1e9);
  return table;
}

void AddSpeeds(Json& result, const std::vector<SpeedLine>& lines) {
  for (const SpeedLine& line : lines) {
    result.Set(line.name + "_tokens_per_second", line.per_second());
    result.Set(line.name + "_floor_tokens_per_second", line.floor_per_second());
    result.Set(line.name + "_share_of_floor", line.share());
    result.Set(line.name + "_bound", line.floor.bound());
    result.Set(line.name + "_bytes", line.work.bytes);
    result.Set(line.name + "_operations", line.work.operations);
  }
}

Status WriteJsonFile(const std::string& path, const Json& value) {
  FILE* file = std::fopen(path.c_str(), "we");
  if (file == nullptr) return Fail(Code::kUnavailable, "cannot write '{}': {}", path, sys::ErrnoText(errno));
  const std::string text = value.DumpPretty() + "\n";
  const bool written = std::fwrite(text.data(), 1, text.size(), file) == text.size();
  if (std::fclose(file) != 0 || !written) {
    return Fail(Code::kUnavailable, "cannot write '{}': {}", path, sys::ErrnoText(errno));
  }
  return {};
}

Status CheckWritable(const std::optional<std::string>& path, const char* flag) {
  if (!path) return {};
  FILE* file = std::fopen(path->c_str(), "ae");
  if (file == nullptr) {
    return FailParam(Code::kInvalidArgument, flag, "{}: cannot write '{}': {}", flag, *path,
                     sys::ErrnoText(errno));
  }
  std::fclose(file);
  return {};
}

}  // namespace cadre::app
