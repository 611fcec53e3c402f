#include "app/bench_report.h"

#include <cerrno>
#include <cstdio>

#include "sys/files.h"

namespace cadre::app {

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
    return FailParam(Code::kInvalidArgument, flag, "{}: cannot write '{}': {}", flag, *path, sys::ErrnoText(errno));
  }
  std::fclose(file);
  return {};
}

}  // namespace cadre::app
